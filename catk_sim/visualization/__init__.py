"""Pictures and films of simulations; `catk_sim.visualization.figures` has figures for reports.

The figures stay out of this namespace, so that nobody waits for matplotlib to draw a picture.
"""

from catk_sim.visualization.bev import BirdsEyeRenderer as BirdsEyeRenderer
from catk_sim.visualization.bev import PredictedModes as PredictedModes
from catk_sim.visualization.bev import render_state as render_state
from catk_sim.visualization.grid import rollout_grid as rollout_grid
from catk_sim.visualization.grid import write_rollout_grid as write_rollout_grid
from catk_sim.visualization.video import rollout_frames as rollout_frames
from catk_sim.visualization.video import side_by_side as side_by_side
from catk_sim.visualization.video import write_video as write_video
