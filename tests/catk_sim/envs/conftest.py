import pytest

from catk_sim.envs import pictures
from catk_sim.visualization.canvas import Frame


class FakeWindow:
    """Takes the place of a window, of which a test has none."""

    made: list["FakeWindow"]

    def __init__(self, title: str, *, fps: float | int) -> None:
        self.title, self.fps = title, fps
        self.shown: list[Frame] = []
        self.is_open = True
        self.made.append(self)

    def show(self, picture: Frame) -> None:
        self.shown.append(picture)

    def close(self) -> None:
        self.is_open = False


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[FakeWindow]:
    FakeWindow.made = []
    monkeypatch.setattr(pictures, "Window", FakeWindow)
    return FakeWindow.made
