"""Episodes as films."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from catk_sim.constants import CURRENT_STEP
from catk_sim.datatypes import Rollout
from catk_sim.visualization import colors
from catk_sim.visualization.bev import BirdsEyeRenderer
from catk_sim.visualization.canvas import Frame
from catk_sim.visualization.legend import draw_legend
from catk_sim.visualization.text import text_width, write

_GAP = 8  # Pixels between the pictures of a grid.


def rollout_frames(
    rollout: Rollout,
    renderer: BirdsEyeRenderer,
    *,
    first_step: int = CURRENT_STEP,
    trail_steps: int = 30,
    collided: Bool[Tensor, "agents steps"] | None = None,
    offroad: Bool[Tensor, "agents steps"] | None = None,
) -> Iterator[Frame]:
    """Draws the steps of an episode, one by one.

    Args:
        rollout: One episode of one scenario. Of a batch of them, take `select(index)`.
        renderer: Draws the scenario that was simulated. Episodes may share it.
        first_step: Step of the log's time at which the film begins; 0 shows the history too.
        trail_steps: Length of the trails behind agents.
        collided: Agents to mark as collided, for each step of `rollout.simulated`.
        offroad: Agents to mark as off the road, likewise.
    """
    batch = tuple(rollout.simulated.valid.shape[:-2])
    if batch:
        raise ValueError(
            f"a film shows one episode, but these have the batch shape {batch}: "
            "take one of them with select(index)"
        )
    num_steps = rollout.simulated.num_steps
    if not 0 <= first_step < num_steps:
        raise ValueError(f"a film must begin at one of {num_steps} steps, got step {first_step}")
    simulated = rollout.simulated.to("cpu")
    # Not a generator by itself, so that wrong arguments are refused when it is called.
    return (
        renderer.render_motion(
            simulated.slice(max(0, step - trail_steps), step + 1),
            step=step,
            controlled=rollout.final.controlled,
            collided=None if collided is None else collided[:, step],
            offroad=None if offroad is None else offroad[:, step],
        )
        for step in range(first_step, num_steps)
    )


def side_by_side(
    films: Mapping[str, Iterable[Frame]], *, columns: int | None = None, legend: bool = True
) -> Iterator[Frame]:
    """Shows films at once, each under its title, with one legend for all.

    Args:
        films: Pictures of equal size, as many in each film, by title.
        columns: How many stand in a row; by default, all.
        legend: Whether the legend stands below.
    """
    if not films:
        raise ValueError("there is no film to show")
    if columns is not None and columns < 1:
        raise ValueError(f"a grid needs at least one column, got {columns}")
    per_row = min(columns or len(films), len(films))
    empty, places = None, []
    for frames in _in_step(films):
        if empty is None:
            _require_equal_sizes(dict(zip(films, frames, strict=True)))
            empty, places = _empty_page(list(films), frames[0].shape, per_row, legend=legend)
        page = empty.copy()
        for frame, (top, left) in zip(frames, places, strict=True):
            page[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
        yield page


def write_video(frames: Iterable[Frame], path: str | Path, *, fps: float | int = 10) -> Path:
    """Writes pictures as a film: H.264 if the path ends in .mp4, else GIF if it ends in .gif.

    H.264 needs even sides, so an odd one grows by a row or column that repeats the last. In a GIF
    equal successive pictures become one that stays longer, and times are rounded to 10 ms.

    Args:
        frames: Pictures of equal size. They are taken one by one, never held all at once.
        path: Where to write. Missing folders are made.
        fps: Pictures a second; 10 shows a simulation in real time.

    Returns:
        The path.

    Raises:
        ValueError: The suffix is another one, a picture differs in size, or there is none.

    Example:
        >>> import tempfile
        >>> gray = (np.full((32, 32, 3), 10 * index, dtype=np.uint8) for index in range(5))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_video(gray, f"{folder}/film.gif").suffix
        '.gif'
    """
    path = Path(path)
    write_frames = {".mp4": _write_mp4, ".gif": _write_gif}.get(path.suffix.lower())
    if write_frames is None:
        raise ValueError(f"a film must end in .mp4 or .gif, got {path.name!r}")
    if not 0 < fps <= 100:
        raise ValueError(f"fps must be above 0 and at most 100, got {fps}")
    frames = _of_one_size(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"no pictures came for {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_frames(first, frames, path, fps)
    return path


def _in_step(films: Mapping[str, Iterable[Frame]]) -> Iterator[tuple[Frame, ...]]:
    running = [iter(film) for film in films.values()]
    while True:
        frames = [next(film, None) for film in running]
        ended = [title for title, frame in zip(films, frames, strict=True) if frame is None]
        if len(ended) == len(frames):
            return
        if ended:
            raise ValueError(f"films side by side must be equally long, {ended} ended first")
        yield tuple(frame for frame in frames if frame is not None)


def _require_equal_sizes(frames: Mapping[str, Frame]) -> None:
    (first, wanted), *others = ((title, frame.shape) for title, frame in frames.items())
    for title, shape in others:
        if shape != wanted:
            raise ValueError(
                f"films side by side must be equally large, {title!r} has the shape {shape} "
                f"and {first!r} {wanted}"
            )


def _empty_page(
    titles: list[str], shape: tuple[int, ...], columns: int, *, legend: bool
) -> tuple[Frame, list[tuple[int, int]]]:
    """Lays out a grid; returns it with titles and legend, and where the pictures go."""
    height, width = shape[:2]
    font = min(max(11, width // 28), 32)
    bar = round(1.7 * font)
    rows = -(-len(titles) // columns)
    whole = columns * (width + _GAP) + _GAP
    below = draw_legend(whole, scale=min(2.0, max(0.8, whole / 1200))) if legend else None
    total = rows * (height + bar) + _GAP + (0 if below is None else len(below))
    page = np.full((total, whole, 3), colors.WHITE, dtype=np.uint8)
    places = []
    for index, title in enumerate(titles):
        left = _GAP + index % columns * (width + _GAP)
        top = index // columns * (height + bar) + bar
        center = left + max(0, width - text_width(title, font)) // 2
        write(page, title, left=center, top=top - round(1.5 * font), height=font)
        places.append((top, left))
    if below is not None:
        page[-len(below) :] = below
    return page, places


def _of_one_size(frames: Iterable[Frame]) -> Iterator[Frame]:
    shape: tuple[int, ...] | None = None
    for index, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(
                f"picture {index} must be uint8 (height, width, 3), got {frame.dtype} {frame.shape}"
            )
        shape = shape or frame.shape
        if frame.shape != shape:
            raise ValueError(f"picture {index} must have the shape {shape}, got {frame.shape}")
        yield frame


def _write_mp4(first: Frame, others: Iterator[Frame], path: Path, fps: float | int) -> None:
    odd = ((0, first.shape[0] % 2), (0, first.shape[1] % 2), (0, 0))
    writer = imageio.get_writer(
        path,
        format="FFMPEG",
        fps=fps,
        codec="libx264",
        pixelformat="yuv420p",
        quality=None,
        macro_block_size=1,
        # faststart: a browser plays it before it has all of it.
        output_params=["-crf", "18", "-movflags", "+faststart"],
    )
    with writer:
        for frame in chain([first], others):
            writer.append_data(np.pad(frame, odd, mode="edge"))


def _write_gif(first: Frame, others: Iterator[Frame], path: Path, fps: float | int) -> None:
    palette = _gif_palette(first)

    def reduce(frame: Frame) -> Image.Image:
        # Dithering would flicker, and compresses badly.
        return Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)

    reduce(first).save(
        path,
        save_all=True,
        append_images=map(reduce, others),
        duration=round(1000 / fps),
        loop=0,
    )


def _gif_palette(first: Frame) -> Image.Image:
    """Colours of the first picture, and those that later ones may need."""
    fixed = [part for color in colors.PALETTE for part in color]
    free = 256 - len(colors.PALETTE)
    own = Image.fromarray(first).quantize(free).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette(fixed + own[: 3 * free])
    return palette
