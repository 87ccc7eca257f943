"""Timing of the Waymo Open Motion Dataset, which every module shares."""

STEP_SECONDS = 0.1
"""Time between two logged steps (s)."""

NUM_STEPS = 91
"""Steps in a logged scenario: 10 past, the current one, 80 future."""

CURRENT_STEP = 10
"""Index of the last step that a policy may see before it acts."""

HISTORY_STEPS = CURRENT_STEP + 1
"""Steps that a policy sees: the past and the current one."""

FUTURE_STEPS = NUM_STEPS - HISTORY_STEPS
"""Steps that are simulated (8 s)."""

STEPS_PER_TOKEN = 5
"""Logged steps that one motion token covers (half a second)."""

NUM_MARKS = (NUM_STEPS - 1) // STEPS_PER_TOKEN
"""Half-second marks of a scenario: mark j is the state at step `STEPS_PER_TOKEN * (j + 1)`."""

HISTORY_MARKS = CURRENT_STEP // STEPS_PER_TOKEN
"""Marks that lie in the history. The last of them is the current step."""
