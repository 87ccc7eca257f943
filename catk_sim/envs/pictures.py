"""What users see of an environment."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from jaxtyping import Bool
from torch import Tensor

from catk_sim.datatypes import SimState
from catk_sim.visualization.canvas import Frame
from catk_sim.visualization.framing import Follow
from catk_sim.visualization.tiling import tiled
from catk_sim.visualization.window import Window

if TYPE_CHECKING:
    from catk_sim.visualization.bev import BirdsEyeRenderer

SIZE = 800
"""Sides of the picture of a world, or of a window that shows many (pixels)."""

_SMALLEST = 200


class Pictures:
    """Draws the worlds of an environment from above.

    Args:
        follow: What stays in the middle.
        size: Sides of the picture of a world (pixels).
    """

    def __init__(self, *, follow: Follow, size: int = SIZE) -> None:
        self._follow: Follow = follow
        self._size = size
        self._renderers: dict[tuple[int, int], BirdsEyeRenderer] = {}

    def forget(self, worlds: Iterable[int]) -> None:
        """Forgets the maps of worlds that are about to play another scenario."""
        gone = set(worlds)
        self._renderers = {key: each for key, each in self._renderers.items() if key[0] not in gone}

    def draw(
        self,
        state: SimState,
        *,
        collided: Bool[Tensor, "worlds agents"],
        offroad: Bool[Tensor, "worlds agents"],
    ) -> tuple[Frame, ...]:
        """Draws every world of a batch, with marks at agents that collided or left the road."""
        # Here, so that an environment that draws nothing does without what draws.
        from catk_sim.visualization.bev import BirdsEyeRenderer

        state, pictures = state.to("cpu"), []
        for world in range(len(collided)):
            now = state.select(world)
            # Worlds get room for more agents when a larger scenario enters beside them.
            key = (world, state.history.num_agents)
            if key not in self._renderers:
                self._renderers[key] = BirdsEyeRenderer(
                    now.scenario, size=self._size, follow=self._follow
                )
            pictures.append(
                self._renderers[key].render(now, collided=collided[world], offroad=offroad[world])
            )
        return tuple(pictures)


class Screen:
    """Shows the worlds of an environment in a window, which opens with the first picture.

    Args:
        num_worlds: How many there are.
        follow: What stays in the middle.
        fps: Pictures a second, at most.
    """

    def __init__(self, num_worlds: int, *, follow: Follow, fps: int) -> None:
        self._columns = math.ceil(math.sqrt(num_worlds))
        self.pictures = Pictures(follow=follow, size=max(_SMALLEST, SIZE // self._columns))
        self._fps = fps
        self._window: Window | None = None

    def show(
        self,
        state: SimState,
        *,
        collided: Bool[Tensor, "worlds agents"],
        offroad: Bool[Tensor, "worlds agents"],
    ) -> None:
        """Shows a state; the arguments are those of `Pictures.draw`.

        Raises:
            RuntimeError: There is no display.
        """
        if self._window is None:
            self._window = Window("CatK-Waymo-v0", fps=self._fps)
        if self._window.is_open:
            drawn = self.pictures.draw(state, collided=collided, offroad=offroad)
            self._window.show(tiled(drawn, self._columns))

    def close(self) -> None:
        """Closes the window."""
        if self._window is not None:
            self._window.close()
