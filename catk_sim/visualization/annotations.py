"""What is written on a picture of the world: title, time, scale bar, legend."""

import numpy as np

from catk_sim.constants import CURRENT_STEP, STEP_SECONDS
from catk_sim.visualization import colors
from catk_sim.visualization.canvas import Camera, Frame
from catk_sim.visualization.legend import draw_legend
from catk_sim.visualization.text import blend, text_width, write

_SMALLEST = 200  # Pixels. Writing on a smaller picture would hide it.


class Annotations:
    """Writes on the pictures of one camera: title and time, scale bar, and maybe the legend.

    Args:
        camera: Size and scale of the pictures. Less than 200 pixels wide they stay unwritten.
        title: Stands above the time.
        legend: Whether to draw the legend.
    """

    def __init__(self, camera: Camera, *, title: str, legend: bool) -> None:
        self._size = camera.size
        self._title = title
        self._font = max(11, round(camera.size / 48))
        self._margin = self._font // 2
        self._bar_metres = scale_bar_length(camera.metres)
        self._bar_pixels = round(self._bar_metres * camera.pixels_per_metre)
        self._legend = draw_legend(scale=max(0.75, camera.size / 800)) if legend else None

    def write(self, pixels: Frame, step: int) -> None:
        """Writes on a picture of a step of the log's time; 0 s is the current step."""
        if self._size < _SMALLEST:
            return
        bottom = self._write_time(pixels, (step - CURRENT_STEP) * STEP_SECONDS)
        self._draw_scale_bar(pixels)
        if self._legend is not None:
            blend(pixels, self._legend, left=self._margin, top=bottom + self._margin)

    def _write_time(self, pixels: Frame, seconds: float) -> int:
        """Returns the first row below what it writes."""
        lines = [line for line in (self._title, f"{seconds:+.1f} s") if line]
        row = round(1.4 * self._font)
        # As wide at every step as at the widest time, so that it does not flicker.
        width = max(text_width(line, self._font) for line in [self._title, "+00.0 s"] if line)
        label = np.full((row * len(lines), width + self._font, 3), 255, dtype=np.uint8)
        for index, line in enumerate(lines):
            write(label, line, left=self._font // 2, top=index * row, height=self._font)
        blend(pixels, label, left=self._margin, top=self._margin)
        return self._margin + len(label)

    def _draw_scale_bar(self, pixels: Frame) -> None:
        text, thick = f"{self._bar_metres:g} m", max(2, self._font // 5)
        row = round(1.4 * self._font)
        width = max(self._bar_pixels, text_width(text, self._font)) + self._font
        label = np.full((row + 3 * thick, width, 3), 255, dtype=np.uint8)
        left = (width - self._bar_pixels) // 2
        write(
            label, text, left=(width - text_width(text, self._font)) // 2, top=0, height=self._font
        )
        label[row : row + thick, left : left + self._bar_pixels] = colors.INK
        top = self._size - self._margin - len(label)
        blend(pixels, label, left=self._size - self._margin - width, top=top)


def scale_bar_length(metres: float | int) -> float:
    """Finds a round length, 1, 2 or 5 times a power of ten, of at most a fifth of a width (m)."""
    power = 10.0 ** np.floor(np.log10(metres / 5))
    return float(max(factor * power for factor in (1, 2, 5) if factor * power <= metres / 5))
