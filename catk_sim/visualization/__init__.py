"""Pictures and films of simulations; `catk_sim.visualization.figures` has figures for reports.

The figures stay out of this namespace, so that nobody waits for matplotlib to draw a picture. The
names below are loaded when they are used: an environment that draws nothing does without them.
"""

from typing import TYPE_CHECKING

from catk_sim.lazy_names import lazy_names

if TYPE_CHECKING:
    from catk_sim.visualization.bev import BirdsEyeRenderer as BirdsEyeRenderer
    from catk_sim.visualization.bev import PredictedModes as PredictedModes
    from catk_sim.visualization.bev import render_state as render_state
    from catk_sim.visualization.grid import rollout_grid as rollout_grid
    from catk_sim.visualization.grid import write_rollout_grid as write_rollout_grid
    from catk_sim.visualization.video import rollout_frames as rollout_frames
    from catk_sim.visualization.video import side_by_side as side_by_side
    from catk_sim.visualization.video import write_video as write_video

_HOMES = {
    "BirdsEyeRenderer": "catk_sim.visualization.bev",
    "PredictedModes": "catk_sim.visualization.bev",
    "render_state": "catk_sim.visualization.bev",
    "rollout_frames": "catk_sim.visualization.video",
    "rollout_grid": "catk_sim.visualization.grid",
    "side_by_side": "catk_sim.visualization.video",
    "write_rollout_grid": "catk_sim.visualization.grid",
    "write_video": "catk_sim.visualization.video",
}


__getattr__, __dir__ = lazy_names(globals(), _HOMES)
