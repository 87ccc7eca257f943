"""A window on the screen."""

import time
from typing import Any

from catk_sim.visualization.canvas import Frame


class Window:
    """Shows pictures, no faster than asked, by the standard library's tkinter.

    Who closes the window wants to see no more: what is shown afterwards is not, without an error.

    Args:
        title: Stands above the pictures.
        fps: Pictures a second, at most.

    Raises:
        RuntimeError: There is no display, or this Python comes without tkinter.
    """

    def __init__(self, title: str, *, fps: float | int) -> None:
        root, self._tkinter = _open(title)
        # Tk makes the first letter of a class's name small.
        root.title(title)
        self._root: Any = root
        self._label = self._tkinter.Label(root, borderwidth=0)
        self._label.pack()
        self._image: Any = None
        self._seconds = 1 / fps
        self._due = 0.0
        root.protocol("WM_DELETE_WINDOW", self.close)

    @property
    def is_open(self) -> bool:
        """Whether there is something to see."""
        return self._root is not None

    def show(self, picture: Frame) -> None:
        """Shows a picture as soon as the last one was seen for long enough."""
        self._wait()
        if self._root is None:
            return
        self._due = time.monotonic() + self._seconds
        height, width = picture.shape[:2]
        data = b"P6 %d %d 255\n" % (width, height) + picture.tobytes()
        # Tk forgets pictures that nobody holds.
        self._image = self._tkinter.PhotoImage(master=self._root, data=data, format="PPM")
        self._label.configure(image=self._image)
        self._root.update()

    def close(self) -> None:
        """Closes the window, if it is open."""
        if self._root is not None:
            self._image, root, self._root = None, self._root, None
            root.destroy()

    def _wait(self) -> None:
        """Waits until the next picture is due, and reacts to the mouse meanwhile."""
        while self._root is not None:
            self._root.update()
            left = self._due - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.02))


def _open(title: str) -> tuple[Any, Any]:
    instead = 'elsewhere, render_mode="rgb_array" gives pictures as arrays'
    try:
        import tkinter
    except ImportError as error:
        raise RuntimeError(
            "a window needs tkinter, which this Python lacks (Debian and Ubuntu: apt install "
            f"python3-tk, Homebrew: brew install python-tk); {instead}"
        ) from error
    try:
        return tkinter.Tk(className=title), tkinter
    except tkinter.TclError as error:
        raise RuntimeError(f"a window needs a display ({error}); {instead}") from error
