"""Readers of recorded traffic: files to `Scenario`."""
