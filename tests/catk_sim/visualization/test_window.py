import os
import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from catk_sim.visualization import window
from catk_sim.visualization.window import Window

PICTURE = np.arange(3 * 4 * 3, dtype=np.uint8).reshape(3, 4, 3)


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


class Root:
    """A window of Tk, at the border to it."""

    def __init__(self, **given: Any) -> None:
        self.name = given["className"]
        self.num_updates = 0
        self.is_destroyed = False
        self.on_close: Any = None

    def protocol(self, name: str, function: Any) -> None:
        assert name == "WM_DELETE_WINDOW"
        self.on_close = function

    def title(self, name: str) -> None:
        self.name = name

    def update(self) -> None:
        assert not self.is_destroyed, "Tk raises an error here"
        self.num_updates += 1

    def destroy(self) -> None:
        self.is_destroyed = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(window, "time", clock)
    return clock


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What Tk was given to show."""
    pictures: list[bytes] = []
    label = SimpleNamespace(pack=lambda: None, configure=lambda image: pictures.append(image))
    fake = SimpleNamespace(
        Tk=Root,
        TclError=RuntimeError,
        Label=lambda root, **style: label,
        PhotoImage=lambda master, data, format: data,
    )
    monkeypatch.setitem(sys.modules, "tkinter", fake)
    return pictures


def test_a_picture_reaches_the_screen_as_it_is(shown: list[bytes], clock: Clock) -> None:
    Window("traffic", fps=10).show(PICTURE)
    assert shown == [b"P6 4 3 255\n" + PICTURE.tobytes()]


def test_pictures_come_no_faster_than_asked(shown: list[bytes], clock: Clock) -> None:
    screen = Window("traffic", fps=10)
    times = []
    for _ in range(4):
        screen.show(PICTURE)
        times.append(clock.now)
    assert times == pytest.approx([100.0, 100.1, 100.2, 100.3])
    # Who was late does not hurry afterwards.
    clock.now += 1.0
    screen.show(PICTURE)
    assert clock.now == pytest.approx(101.3)
    screen.show(PICTURE)
    assert clock.now == pytest.approx(101.4)


def test_who_closes_the_window_sees_no_more(shown: list[bytes], clock: Clock) -> None:
    screen = Window("traffic", fps=10)
    root = screen._root
    assert screen.is_open
    root.on_close()
    screen.show(PICTURE)
    screen.close()
    assert shown == []
    assert root.is_destroyed
    assert not screen.is_open


def test_a_window_may_be_closed_while_it_waits(
    shown: list[bytes], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Window("traffic", fps=10)
    screen.show(PICTURE)
    monkeypatch.setattr(screen._root, "update", screen._root.on_close)
    screen.show(PICTURE)
    assert len(shown) == 1


def test_a_python_without_tkinter_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(RuntimeError, match=r"python3-tk.*rgb_array"):
        Window("traffic", fps=10)


def test_a_machine_without_a_display_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tkinter")
    if sys.platform != "linux":
        pytest.skip("only there does DISPLAY tell where the screen is")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(RuntimeError, match=r"needs a display.*rgb_array"):
        Window("traffic", fps=10)


@pytest.mark.slow
def test_a_real_window_opens() -> None:
    pytest.importorskip("tkinter")
    xvfb = shutil.which("Xvfb")
    if xvfb is None:
        pytest.skip("needs Xvfb")
    code = (
        "import numpy as np; from catk_sim.visualization.window import Window;"
        "w = Window('Traffic', fps=50); p = np.zeros((30, 40, 3), np.uint8);"
        "w.show(p); w.show(p); print(w._root.winfo_width(), w._root.winfo_height());"
        "print(w._root.title()); w.close()"
    )
    reading, writing = os.pipe()
    # The server finds a free display, and tells which.
    server = subprocess.Popen(
        [xvfb, "-displayfd", str(writing), "-screen", "0", "200x200x24"],
        pass_fds=(writing,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as told:
            display = f":{told.readline().strip()}"
        result = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "DISPLAY": display},
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        server.terminate()
        server.wait()
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["40", "30", "Traffic"]
