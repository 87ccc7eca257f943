import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.visualization import annotations, colors
from catk_sim.visualization.annotations import Annotations, scale_bar_length
from catk_sim.visualization.canvas import Camera, Frame
from catk_sim.visualization.legend import draw_legend
from catk_sim.visualization.text import blend, text_width, write


def annotated(step: int, *, size: int = 300, title: str = "", legend: bool = False) -> Frame:
    camera = Camera(center=(0.0, 0.0), metres=100.0, size=size)
    pixels = np.full((size, size, 3), colors.GROUND, dtype=np.uint8)
    Annotations(camera, title=title, legend=legend).write(pixels, step)
    return pixels


def test_each_step_has_its_own_time() -> None:
    pictures = {annotated(step).tobytes() for step in range(91)}
    assert len(pictures) == 91


def test_time_counts_from_the_current_step(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    monkeypatch.setattr(annotations, "write", lambda pixels, text, **where: texts.append(text))
    for step in (0, 10, 37):
        annotated(step, title="BC")
    assert [text for text in texts if not text.endswith(" m")] == [
        *("BC", "-1.0 s"),
        *("BC", "+0.0 s"),
        *("BC", "+2.7 s"),
    ]


def test_the_time_stays_in_its_corner() -> None:
    early, late = annotated(0), annotated(90)
    changed = (early != late).any(axis=-1)
    assert not changed[30:].any()
    assert not changed[:, 80:].any()


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    # 20 m of 100 m in 300 pixels.
    dark = (annotated(10)[-20:].max(axis=-1) < 70).sum(axis=1)
    assert dark.max() == pytest.approx(60, abs=1)


def test_small_pictures_are_not_written_on() -> None:
    assert (annotated(10, size=150, title="BC", legend=True) == colors.GROUND).all()


@given(metres=st.floats(1e-2, 1e5))
def test_a_scale_bar_is_round_and_between_a_tenth_and_a_fifth_of_the_width(metres: float) -> None:
    length = scale_bar_length(metres)
    assert metres / 12.5 <= length <= metres / 5
    assert f"{length:e}"[0] in "125"
    assert float(f"{length:.0e}") == pytest.approx(length)


def test_text_is_written_where_it_should_be() -> None:
    pixels = np.full((60, 200, 3), 255, dtype=np.uint8)
    write(pixels, "CAT-K", left=50, top=20, height=20)
    dark = np.argwhere((pixels < 128).all(axis=-1))
    assert dark[:, 0].min() >= 20
    assert dark[:, 0].max() < 48
    assert dark[:, 1].min() >= 50
    assert dark[:, 1].max() < 50 + text_width("CAT-K", 20)


def test_text_that_does_not_fit_is_cut_off() -> None:
    pixels = np.full((20, 30, 3), 255, dtype=np.uint8)
    write(pixels, "a long line of text", left=10, top=10, height=20)
    assert (pixels[:, :10] == 255).all()
    assert (pixels != 255).any()


def test_a_label_lets_a_little_shine_through() -> None:
    pixels = np.zeros((10, 10, 3), dtype=np.uint8)
    blend(pixels, np.full((4, 4, 3), 255, dtype=np.uint8), left=8, top=8)
    assert (pixels[8:, 8:] == 223).all()
    assert (pixels[:8] == 0).all()


@pytest.mark.parametrize("width", [60, 180, 700, 2500])
def test_a_legend_is_as_wide_as_asked_for(width: int) -> None:
    assert draw_legend(width).shape[1] == width


def test_a_wider_legend_is_lower() -> None:
    heights = [len(draw_legend(width)) for width in (200, 500, 1000, 3000)]
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] < heights[0] / 4


@pytest.mark.parametrize("width", range(700, 3000, 100))
def test_a_legend_spreads_over_its_width(width: int) -> None:
    inked = np.flatnonzero((draw_legend(width) < 255).any(axis=(0, 2)))
    assert inked[-1] > 0.75 * width


@pytest.mark.parametrize(
    "color",
    [colors.SDC, colors.BLUE, colors.ORANGE, colors.COLLISION, colors.OFFROAD, colors.STOP_SIGN],
)
def test_a_legend_shows_the_colours_of_the_pictures(color: colors.Color) -> None:
    near = np.abs(draw_legend(scale=2.0).astype(int) - color).max(axis=-1) < 8
    assert near.any()
