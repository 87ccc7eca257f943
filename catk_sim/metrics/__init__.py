"""Measures of a simulated motion."""
