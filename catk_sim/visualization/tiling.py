"""Pictures next to each other."""

from collections.abc import Sequence

import numpy as np

from catk_sim.visualization import colors
from catk_sim.visualization.canvas import Frame

_GAP = 2  # Pixels between pictures.


def tiled(frames: Sequence[Frame], columns: int) -> Frame:
    """Puts pictures of equal size next to each other, row by row, on white."""
    rows = -(-len(frames) // columns)
    height, width = (side + _GAP for side in frames[0].shape[:2])
    page = np.full((rows * height - _GAP, columns * width - _GAP, 3), colors.WHITE, np.uint8)
    for index, frame in enumerate(frames):
        top, left = index // columns * height, index % columns * width
        page[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
    return page
