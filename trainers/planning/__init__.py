"""Planners and ego policies on the same scenarios, in traffic of one's choice."""
