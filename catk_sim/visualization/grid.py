"""Many rollouts of one scenario at once."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import imageio.v3 as imageio

from catk_sim.constants import CURRENT_STEP
from catk_sim.datatypes import Rollout, Scenario
from catk_sim.metrics.collision import collision_indication
from catk_sim.metrics.offroad import vehicles_off_road
from catk_sim.visualization.bev import BirdsEyeRenderer
from catk_sim.visualization.canvas import Frame
from catk_sim.visualization.framing import Follow, require_one_world
from catk_sim.visualization.tiling import tiled
from catk_sim.visualization.video import rollout_frames, side_by_side, write_video

_PAGE = 1600  # Pixels that a page is wide, if its pictures may have any size.
_SMALLEST, _LARGEST = 200, 600  # Sides of these pictures.
_PICTURES, _FILMS = (".png", ".jpg", ".jpeg", ".webp"), (".mp4", ".gif")


def rollout_grid(
    scenario: Scenario,
    rollouts: Mapping[str, Rollout],
    *,
    size: int | None = None,
    metres: float | int | None = None,
    follow: Follow = "scene",
    first_step: int = CURRENT_STEP,
    trail_steps: int = 30,
    legend: bool = True,
) -> Iterator[Frame]:
    """Draws rollouts side by side, step by step: a block for each policy, its name above.

    All are seen by one camera. Collisions and vehicles off the road are marked. Shorter rollouts
    stay as they end until the longest is over. Time and scale stand in one picture alone, the first
    of the longest, and one legend below all.

    Args:
        scenario: What was simulated, without batch dimensions.
        rollouts: Episodes by the name of the policy, such as "BC" and "CAT-K": one, or several in
            one batch dimension; as many of each policy.
        size: Sides of the picture of a rollout (pixels), at least 200 for writing. By default, what
            makes a page some 1600 wide.
        metres: Sides of the pictures on the ground (m), as in `BirdsEyeRenderer`.
        follow: What stays in the middle of each picture.
        first_step: Step of the log's time at which it begins.
        trail_steps: Length of the trails behind agents.
        legend: Whether the legend stands below.

    Example:
        >>> import torch
        >>> from catk_sim.datasets import open_scenarios
        >>> from catk_sim.rollout import rollout
        >>> from policies.registry import make_policy
        >>> scenario = next(iter(open_scenarios("synthetic"))).to(torch.float32)
        >>> driven = rollout(make_policy("idm"), scenario, num_rollouts=4)
        >>> next(rollout_grid(scenario, {"IDM": driven}, size=200, legend=False)).shape
        (434, 418, 3)
    """
    require_one_world(scenario)
    if not rollouts:
        raise ValueError("there is no rollout to draw")
    scenario = scenario.to("cpu")
    episodes = {name: _episodes(name, each) for name, each in rollouts.items()}
    if len({len(each) for each in episodes.values()}) > 1:
        counts = {name: len(each) for name, each in episodes.items()}
        raise ValueError(f"wanted as many rollouts of each policy, got {counts}")
    columns = _columns(len(next(iter(episodes.values()))))
    if size is None:
        size = min(max(_SMALLEST, _PAGE // (columns * len(episodes))), _LARGEST)

    lengths = {name: each[0].simulated.num_steps for name, each in episodes.items()}
    longest = max(lengths, key=lambda name: lengths[name])
    if first_step >= lengths[longest]:
        raise ValueError(
            f"a film must begin at one of {lengths[longest]} steps, got step {first_step}"
        )

    def film(episode: Rollout, *, is_timed: bool) -> Iterator[Frame]:
        over = max(0, first_step - (episode.simulated.num_steps - 1))
        return rollout_frames(
            episode,
            # Each its own: those that follow an agent look at different places of the map.
            BirdsEyeRenderer(
                scenario, size=size, metres=metres, follow=follow, is_written_on=is_timed
            ),
            first_step=first_step - over,
            trail_steps=max(0, trail_steps - over),
            collided=collision_indication(episode.simulated, scenario).value > 0,
            offroad=vehicles_off_road(episode.simulated, scenario),
        )

    blocks = {
        name: zip(
            *(
                film(episode, is_timed=name == longest and index == 0)
                for index, episode in enumerate(each)
            ),
            strict=True,
        )
        for name, each in episodes.items()
    }
    pages = {
        name: _held((tiled(each, columns) for each in block), lengths[longest] - first_step)
        for name, block in blocks.items()
    }
    return side_by_side(pages, legend=legend)


def write_rollout_grid(
    scenario: Scenario, rollouts: Mapping[str, Rollout], path: str | Path, **arguments: Any
) -> Path:
    """Writes rollouts side by side as a picture of how they end, or as a film.

    Args:
        scenario: What was simulated, without batch dimensions.
        rollouts: Episodes by the name of the policy; see `rollout_grid`.
        path: Where to write: a picture, with trails from the start on, if it ends in .png, .jpg or
            .webp; a film if it ends in .mp4 or .gif. Missing folders are made.
        **arguments: Those of `rollout_grid`.

    Returns:
        The path.

    Raises:
        ValueError: The suffix is another one, or the rollouts do not fit.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in _FILMS:
        return write_video(rollout_grid(scenario, rollouts, **arguments), path)
    if suffix not in _PICTURES:
        wanted = ", ".join((*_PICTURES, *_FILMS))
        raise ValueError(f"a grid must end in one of {wanted}, got {path.name!r}")
    last = max((each.simulated.num_steps for each in rollouts.values()), default=1) - 1
    since = last - arguments.pop("first_step", CURRENT_STEP)
    arguments = {"trail_steps": since, **arguments}
    page = next(rollout_grid(scenario, rollouts, first_step=last, **arguments))
    path.parent.mkdir(parents=True, exist_ok=True)
    imageio.imwrite(path, page)
    return path


def _episodes(name: str, rollout: Rollout) -> list[Rollout]:
    batch = tuple(rollout.simulated.valid.shape[:-2])
    if len(batch) > 1 or 0 in batch:
        raise ValueError(
            f"wanted one rollout of {name}, or several in one batch dimension, got the batch shape "
            f"{batch}"
        )
    rollout = rollout.to("cpu")
    return [rollout.select(index) for index in range(batch[0])] if batch else [rollout]


def _held(pages: Iterator[Frame], count: int) -> Iterator[Frame]:
    """Repeats the last page until there are as many as wanted."""
    page = next(pages)
    for _ in range(count):
        yield page
        page = next(pages, page)


def _columns(count: int) -> int:
    """Finds a number of columns that leaves no gap, at most twice as wide as high, or a square."""
    square = math.ceil(math.sqrt(count))
    fitting = range(square, math.isqrt(2 * count) + 1)
    return next((columns for columns in fitting if count % columns == 0), square)
