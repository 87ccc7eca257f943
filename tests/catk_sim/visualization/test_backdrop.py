import numpy as np
import pytest

from catk_sim.visualization.backdrop import Backdrop
from tests import scenes


def backdrop() -> Backdrop:
    return Backdrop(scenes.straight_road().roadgraph, size=100, metres=50.0)


def test_a_view_does_not_depend_on_earlier_ones() -> None:
    used = backdrop()
    for center in [(0.0, 0.0), (80.0, 3.0), (12.3, -4.5), (-60.0, 0.0), (0.0, 0.0)]:
        view, fresh = used.view(center), backdrop().view(center)
        assert np.array_equal(view.pixels, fresh.pixels)
        assert view.camera == fresh.camera


def test_a_view_is_in_the_middle_to_half_a_pixel() -> None:
    center = (12.34, -5.67)
    camera = backdrop().view(center).camera
    column, row = camera.to_pixels(np.array(center))
    assert column == pytest.approx(49.5, abs=0.5)
    assert row == pytest.approx(49.5, abs=0.5)


def test_the_map_lies_where_the_camera_says() -> None:
    # The upper road edge is at y = 4, wherever along the road one looks.
    for center in [(0.0, 0.0), (37.0, 6.0), (-61.0, -3.5)]:
        view = backdrop().view(center)
        column, row = view.camera.to_pixels(np.array([center[0], 4.0]))
        dark = view.pixels[:, round(column)].max(axis=-1).astype(int)
        near = dark[round(row) - 4 : round(row) + 5]
        assert round(row) - 4 + int(near.argmin()) == pytest.approx(row, abs=1)


def test_drawing_on_a_view_leaves_the_map_alone() -> None:
    used = backdrop()
    used.view((0.0, 0.0)).pixels[:] = 0
    assert np.array_equal(used.view((0.0, 0.0)).pixels, backdrop().view((0.0, 0.0)).pixels)


def test_the_map_is_drawn_again_only_when_a_view_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = Backdrop._draw
    monkeypatch.setattr(
        Backdrop, "_draw", lambda self, center: drawn.append(center) or draw(self, center)
    )
    used = backdrop()
    for metres in np.arange(0.0, 12.0, 0.5):  # A picture reaches 12.5 m further than its views.
        used.view((float(metres), 0.0))
    assert len(drawn) == 1
    used.view((30.0, 0.0))
    assert len(drawn) == 2
