"""Planners that plug in: they see what a car would see, and drive it in closed loop."""
