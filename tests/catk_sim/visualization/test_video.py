import gc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from catk_sim.visualization import (
    BirdsEyeRenderer,
    colors,
    rollout_frames,
    side_by_side,
    write_video,
)
from catk_sim.visualization.canvas import Frame
from tests import scenes
from tests.catk_sim.visualization.episodes import moved, rollout_of


def ramp(count: int, height: int = 48, width: int = 64) -> Iterator[Frame]:
    """Gray pictures that become lighter."""
    for index in range(count):
        yield np.full((height, width, 3), 10 + 10 * index, dtype=np.uint8)


def crossing(count: int) -> Iterator[Frame]:
    """A blue block that moves four pixels a picture to the right."""
    for index in range(count):
        frame = np.full((48, 64, 3), 255, dtype=np.uint8)
        frame[16:32, 4 * index : 4 * index + 16] = colors.BLUE
        yield frame


def read(path: Path) -> Frame:
    """Reads a film back. imageio forgets to close ffmpeg's pipes, which is not our film's fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        frames = iio.imread(path)
        gc.collect()
    return frames


def facts(path: Path) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        known = iio.immeta(path)
        gc.collect()
    return known


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".MP4"])
def test_a_film_has_the_pictures_that_were_written(tmp_path: Path, suffix: str) -> None:
    frames = read(write_video(crossing(12), tmp_path / f"film{suffix}"))
    assert frames.shape == (12, 48, 64, 3)
    blue = np.abs(frames[:, 24].astype(int) - colors.BLUE).max(axis=-1) < 20
    for index, row in enumerate(blue):
        assert np.flatnonzero(row) == pytest.approx(4 * index + np.arange(16), abs=1)


def test_an_mp4_is_h264_that_every_player_shows(tmp_path: Path) -> None:
    known = facts(write_video(ramp(10), tmp_path / "film.mp4", fps=20))
    assert known["codec"] == "h264"
    assert known["pix_fmt"].startswith("yuv420p")
    assert known["fps"] == 20
    assert known["duration"] == pytest.approx(0.5)


def test_a_gif_runs_as_fast_as_asked_and_forever(tmp_path: Path) -> None:
    known = facts(write_video(crossing(3), tmp_path / "film.gif", fps=5))
    assert known["duration"] == 200
    assert known["loop"] == 0


def test_a_gif_keeps_colours_that_its_first_picture_lacks(tmp_path: Path) -> None:
    first = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    second = np.full((64, 64, 3), colors.COLLISION, dtype=np.uint8)
    frames = read(write_video([first, second], tmp_path / "film.gif"))
    assert tuple(frames[1, 5, 5]) == colors.COLLISION


def test_a_gif_is_not_dithered(tmp_path: Path) -> None:
    pictures = [*ramp(1), np.full((48, 64, 3), (100, 50, 200), dtype=np.uint8)]
    flat = read(write_video(pictures, tmp_path / "film.gif"))[1]
    assert (flat == flat[0, 0]).all()


def test_odd_sides_of_an_mp4_grow_by_one(tmp_path: Path) -> None:
    gray = np.full((49, 65, 3), 180, dtype=np.uint8)
    frames = read(write_video([gray] * 3, tmp_path / "film.mp4"))
    assert frames.shape == (3, 50, 66, 3)
    assert np.abs(frames.astype(int) - 180).max() < 8


def test_missing_folders_are_made(tmp_path: Path) -> None:
    assert write_video(ramp(2), tmp_path / "a" / "b" / "film.gif").exists()


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.mp4 or \.gif, got 'film\.avi'"):
        write_video(ramp(2), tmp_path / "film.avi")
    with pytest.raises(ValueError, match="fps"):
        write_video(ramp(2), tmp_path / "film.mp4", fps=0)
    with pytest.raises(ValueError, match="no pictures"):
        write_video([], tmp_path / "film.mp4")
    with pytest.raises(ValueError, match=r"picture 0 must be uint8 .* got float64"):
        write_video(iter([np.zeros((8, 8, 3))]), tmp_path / "film.mp4")
    assert not list(tmp_path.iterdir())


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"picture 2 must have the shape \(48, 64, 3\)"):
        write_video([*ramp(2), *ramp(1, 50, 64)], tmp_path / "film.gif")


def test_an_episode_has_a_picture_for_each_step() -> None:
    scenario = scenes.straight_road()
    renderer = BirdsEyeRenderer(scenario, size=64)
    rollout = rollout_of(scenario, scenario.log)
    assert len(list(rollout_frames(rollout, renderer))) == 81
    assert len(list(rollout_frames(rollout, renderer, first_step=0))) == 91


def test_a_picture_of_an_episode_shows_its_step() -> None:
    scenario = scenes.straight_road()
    renderer = BirdsEyeRenderer(scenario, size=120, metres=60.0, follow="sdc")
    rollout = rollout_of(scenario, moved(scenario, 0.0, 3.0))
    frames = list(rollout_frames(rollout, renderer, first_step=20, trail_steps=7))
    expected = renderer.render_motion(
        rollout.simulated.slice(43, 51), step=50, controlled=rollout.final.controlled
    )
    assert np.array_equal(frames[30], expected)


def test_warnings_appear_at_their_steps() -> None:
    scenario = scenes.straight_road()
    renderer = BirdsEyeRenderer(scenario, size=300, metres=40.0, follow="sdc")
    rollout = rollout_of(scenario, scenario.log)
    collided = torch.zeros(3, 91, dtype=torch.bool)
    collided[0, 30] = True
    offroad = torch.zeros_like(collided)
    offroad[0, 32] = True
    frames = rollout_frames(rollout, renderer, first_step=29, collided=collided, offroad=offroad)
    seen = [
        tuple(
            bool((frame == color).all(axis=-1).any())
            for color in (colors.COLLISION, colors.OFFROAD)
        )
        for frame, _ in zip(frames, range(4), strict=False)
    ]
    assert seen == [(False, False), (True, False), (False, False), (False, True)]


def test_a_film_that_begins_after_its_end_is_refused() -> None:
    scenario = scenes.straight_road()
    renderer = BirdsEyeRenderer(scenario, size=64)
    with pytest.raises(ValueError, match="91 steps, got step 91"):
        rollout_frames(rollout_of(scenario, scenario.log), renderer, first_step=91)


def test_a_batch_of_episodes_is_refused() -> None:
    scenario = scenes.straight_road()
    rollout = rollout_of(scenario, scenario.log).repeat(2)
    with pytest.raises(ValueError, match=r"one episode, .* \(2,\).*select"):
        rollout_frames(rollout, BirdsEyeRenderer(scenario, size=64))


def test_films_run_side_by_side_in_order() -> None:
    pages = list(side_by_side({"BC": ramp(4), "CAT-K": ramp(4)}, legend=False))
    assert len(pages) == 4
    for index, page in enumerate(pages):
        inside = (page == 10 + 10 * index).all(axis=-1)
        assert inside.sum() == 2 * 48 * 64
        assert inside[:, : page.shape[1] // 2].sum() == 48 * 64


def test_a_grid_has_as_many_columns_as_asked_for() -> None:
    films = {f"rollout {index}": ramp(1) for index in range(5)}
    page = next(side_by_side(films, columns=2, legend=False))
    inside = (page == 10).all(axis=-1)
    assert inside.sum() == 5 * 48 * 64
    assert inside.any(axis=0).sum() == 2 * 64
    assert inside.any(axis=1).sum() == 3 * 48


def test_one_legend_stands_below_all_films() -> None:
    films = {"BC": 300, "CAT-K": 300}
    with_legend, without = (
        next(side_by_side({name: ramp(1, 300, 300) for name in films}, legend=legend))
        for legend in (True, False)
    )
    assert len(with_legend) > len(without) + 20
    assert np.array_equal(with_legend[: len(without)], without)


def test_pages_are_not_changed_afterwards() -> None:
    first, second = side_by_side({"BC": ramp(2)}, legend=False)
    assert (first != second).any()


def test_films_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"equally long, \['CAT-K'\] ended first"):
        list(side_by_side({"BC": ramp(3), "CAT-K": ramp(2)}))


def test_films_of_unequal_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'CAT-K' .*\(50, 64, 3\)"):
        list(side_by_side({"BC": ramp(1), "CAT-K": ramp(1, 50, 64)}))


def test_a_grid_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no film"):
        list(side_by_side({}))
    with pytest.raises(ValueError, match="one column, got 0"):
        list(side_by_side({"BC": ramp(1)}, columns=0))
