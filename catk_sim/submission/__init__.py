"""Submissions to the Waymo Open Sim Agents Challenge: made, checked before they are, and read back.

The format is that of Waymo's `sim_agents_submission.proto` and of the tutorial
`tutorial_sim_agents.ipynb` of github.com/waymo-research/waymo-open-dataset.
"""

from catk_sim.submission.metadata import SubmissionMetadata as SubmissionMetadata
from catk_sim.submission.reader import read_submission as read_submission
from catk_sim.submission.reader import submitted_scenarios as submitted_scenarios
from catk_sim.submission.rollouts import NUM_ROLLOUTS as NUM_ROLLOUTS
from catk_sim.submission.rollouts import ScenarioRollouts as ScenarioRollouts
from catk_sim.submission.rollouts import check_rollouts as check_rollouts
from catk_sim.submission.rollouts import simulated_rollouts as simulated_rollouts
from catk_sim.submission.writer import write_submission as write_submission
