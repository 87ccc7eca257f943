"""Drawing in metres: a camera above the world, and the picture that it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int32, UInt8

from catk_sim.visualization.colors import Color

Frame: TypeAlias = UInt8[np.ndarray, "_ _ 3"]
"""A picture: rows from the top, columns, and red, green, blue."""

Lines: TypeAlias = Sequence[Float[np.ndarray, "_ 2"]] | Float[np.ndarray, "_ _ 2"]
"""Polylines or polygons (m), as a list or, if equally long, as one array."""

# OpenCV takes sub-pixel coordinates as integers in sixteenths of a pixel.
_SHIFT = 4


def _opencv() -> ModuleType:
    """Imports OpenCV when something is drawn, so that training does without its 16 MB."""
    import cv2

    return cv2


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A square view straight down: +x is right, +y is up.

    Attributes:
        center: The middle of the picture (m), in the scenario's frame.
        metres: Length of the picture's sides on the ground (m).
        size: Length of the picture's sides (pixels).
    """

    center: tuple[float, float]
    metres: float | int
    size: int

    def __post_init__(self) -> None:
        if self.size < 16:
            raise ValueError(f"a picture needs sides of at least 16 pixels, got {self.size}")
        if not 0 < self.metres < float("inf"):
            raise ValueError(f"a picture must show a positive number of metres, got {self.metres}")

    @property
    def pixels_per_metre(self) -> float:
        """Scale of the picture."""
        return self.size / self.metres

    def to_pixels(self, xy: Float[np.ndarray, "*shape 2"]) -> Float[np.ndarray, "*shape 2"]:
        """Finds points in the picture: column and row, whole numbers at the middle of a pixel."""
        scale = np.array([self.pixels_per_metre, -self.pixels_per_metre])
        return (xy - np.asarray(self.center)) * scale + (self.size - 1) / 2


@dataclass(frozen=True, eq=False)
class Canvas:
    """A picture to draw on, antialiased and to a sixteenth of a pixel.

    Attributes:
        pixels: The picture. Drawing changes it.
        camera: Where it lies in the world.
        unit: Pixels that stand for one pixel of a picture of 800, so that line widths suit the
            size of the picture.
    """

    pixels: Frame
    camera: Camera
    unit: float

    def width(self, units: float) -> int:
        """Width of a line (pixels): at least one."""
        return max(1, round(units * self.unit))

    def to_metres(self, units: float) -> float:
        """Length on the ground (m) of something that has a fixed size in the picture."""
        return units * self.unit / self.camera.pixels_per_metre

    def stroke(self, lines: Lines, color: Color, width: int, *, closed: bool = False) -> None:
        """Draws polylines."""
        cv2 = _opencv()
        if len(lines):
            cv2.polylines(
                self.pixels, self._fixed(lines), closed, color, width, cv2.LINE_AA, _SHIFT
            )

    def fill(self, polygons: Lines, color: Color) -> None:
        """Fills polygons, each by itself: what two of them share is filled."""
        cv2 = _opencv()
        for polygon in self._fixed(polygons):
            cv2.fillPoly(self.pixels, [polygon], color, cv2.LINE_AA, _SHIFT)

    def fill_convex(self, polygons: Lines, colors: Sequence[Color]) -> None:
        """Fills convex polygons, each in its own colour."""
        cv2 = _opencv()
        for polygon, color in zip(self._fixed(polygons), colors, strict=True):
            cv2.fillConvexPoly(self.pixels, polygon, color, cv2.LINE_AA, _SHIFT)

    def _fixed(self, lines: Lines) -> Sequence[Int32[np.ndarray, "_ 2"]]:
        if not len(lines):
            return []
        joined = lines.reshape(-1, 2) if isinstance(lines, np.ndarray) else np.concatenate(lines)
        pixels = self.camera.to_pixels(joined)
        fixed = np.rint(pixels * (1 << _SHIFT)).astype(np.int32)
        if isinstance(lines, np.ndarray):
            return list(fixed.reshape(lines.shape))
        return np.split(fixed, np.cumsum([len(line) for line in lines])[:-1])
