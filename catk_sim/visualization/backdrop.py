"""The map as a picture that is drawn once and looked at often."""

import math

import numpy as np

from catk_sim.datatypes import RoadGraph
from catk_sim.visualization.canvas import Camera, Canvas, Frame
from catk_sim.visualization.map_layer import draw_map
from catk_sim.visualization.polylines import features_by_type

# The map is drawn this much finer and shrunk, for lines between one and two pixels wide.
_FINER = 2


class Backdrop:
    """Cuts views out of a picture of the map that is somewhat larger than they are.

    The map is drawn anew only when a view leaves that picture. Where the pictures lie does not
    depend on what was looked at before, so equal views are equal pixel by pixel.

    Args:
        roadgraph: The map of one scenario.
        size: Sides of the views (pixels).
        metres: Sides of the views on the ground (m).
    """

    def __init__(self, roadgraph: RoadGraph, *, size: int, metres: float | int) -> None:
        self._features = features_by_type(roadgraph)
        self.lens = Camera(center=(0.0, 0.0), metres=metres, size=size)
        self._margin = math.ceil(size / 4)
        self._drawn_at: tuple[int, int] | None = None
        self._picture: Frame = np.empty((0, 0, 3), dtype=np.uint8)

    def view(self, center: tuple[float, float]) -> Canvas:
        """Copies the view around a point (m), moved by up to half a pixel to the pixel grid."""
        scale, size = self.lens.pixels_per_metre, self.lens.size
        column, row = round(center[0] * scale), round(-center[1] * scale)
        # Pictures lie on a grid twice as fine as their margin reaches.
        pitch = 2 * self._margin
        picture = pitch * round(column / pitch), pitch * round(row / pitch)
        if picture != self._drawn_at:
            self._picture, self._drawn_at = self._draw(picture), picture
        left = column - picture[0] + self._margin
        top = row - picture[1] + self._margin
        return Canvas(
            pixels=self._picture[top : top + size, left : left + size].copy(),
            camera=Camera(
                center=(column / scale, -row / scale), metres=self.lens.metres, size=size
            ),
            unit=size / 800,
        )

    def _draw(self, center: tuple[int, int]) -> Frame:
        view, sides = self.lens, self.lens.size + 2 * self._margin
        scale = view.pixels_per_metre
        camera = Camera(
            center=(center[0] / scale, -center[1] / scale),
            metres=sides / scale,
            size=_FINER * sides,
        )
        pixels = np.empty((camera.size, camera.size, 3), dtype=np.uint8)
        draw_map(Canvas(pixels, camera, _FINER * view.size / 800), self._features)
        # Here, so that training does without it.
        import cv2

        return cv2.resize(pixels, (sides, sides), interpolation=cv2.INTER_AREA).astype(np.uint8)
