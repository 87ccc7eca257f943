"""Writing on pictures."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from catk_sim.visualization import colors
from catk_sim.visualization.canvas import Frame


@lru_cache(maxsize=1024)
def _ink(text: str, height: int) -> Float[np.ndarray, "rows columns 1"]:
    """How much ink each pixel of a line of text gets, from 0 to 1."""
    font = ImageFont.load_default(height)
    image = Image.new("L", (int(font.getlength(text)) + 2, round(1.4 * height)))
    ImageDraw.Draw(image).text((1, round(1.05 * height)), text, fill=255, font=font, anchor="ls")
    return np.asarray(image, dtype=np.float32)[..., None] / 255


def text_width(text: str, height: int) -> int:
    """Width (pixels) of a line of text in a font of a given height (pixels)."""
    return _ink(text, height).shape[1]


def write(pixels: Frame, text: str, *, left: int, top: int, height: int) -> None:
    """Writes a line of text into a picture. What does not fit is cut off.

    Args:
        pixels: The picture, which changes.
        text: What to write.
        left: Column where it starts; not negative.
        top: Row where it starts; not negative. The line is 1.4 times as high as the font.
        height: Of the font (pixels).
    """
    ink = _ink(text, height)
    place = pixels[top : top + ink.shape[0], left : left + ink.shape[1]]
    ink = ink[: place.shape[0], : place.shape[1]]
    place[:] = np.rint((1 - ink) * place + ink * np.array(colors.INK, dtype=np.float32))


def blend(pixels: Frame, label: Frame, *, left: int, top: int) -> None:
    """Lays a small picture over a larger one, which shines through it a little."""
    place = pixels[top : top + label.shape[0], left : left + label.shape[1]]
    label = label[: place.shape[0], : place.shape[1]]
    # In integers: (1 * below + 7 * above) / 8, with any colour under 16 bits.
    place[:] = (place.astype(np.uint16) + 7 * label.astype(np.uint16) + 4) // 8
