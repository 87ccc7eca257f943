from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from catk_sim.datatypes import AgentType, Rollout, Scenario
from catk_sim.metrics.offroad import offroad_indication
from catk_sim.visualization import BirdsEyeRenderer, colors, rollout_grid, write_rollout_grid
from catk_sim.visualization.canvas import Frame
from catk_sim.visualization.grid import _columns
from catk_sim.visualization.tiling import tiled
from tests import scenes
from tests.catk_sim.visualization.episodes import moved, rollout_of

SIZE = 200


def several(scenario: Scenario, *sideways: float) -> Rollout:
    """Rollouts in which everybody drives some metres beside the log."""
    return Rollout.stack(
        [rollout_of(scenario, moved(scenario, 0.0, metres)) for metres in sideways]
    )


def test_each_rollout_has_its_place_under_the_name_of_its_policy() -> None:
    scenario = scenes.straight_road()
    driven = {"BC": several(scenario, 0.0, 1.0), "CAT-K": several(scenario, 2.0, 3.0)}
    page = next(rollout_grid(scenario, driven, size=SIZE, legend=False, first_step=30))
    blank = BirdsEyeRenderer(scenario, size=SIZE, is_written_on=False)
    below = page[-SIZE - 8 : -8]
    lefts = (8, 8 + SIZE + 2, 18 + 2 * SIZE, 20 + 3 * SIZE)
    # The first has the time and the scale too.
    for index, metres in ((1, 1.0), (2, 2.0), (3, 3.0)):
        motion = moved(scenario, 0.0, metres)
        alone = blank.render_motion(
            motion.slice(0, 31),
            step=30,
            controlled=scenario.agents.valid,
            offroad=(offroad_indication(motion, scenario).value[:, 30] > 0)
            & (scenario.agents.type == AgentType.VEHICLE),
        )
        np.testing.assert_array_equal(below[:, lefts[index] : lefts[index] + SIZE], alone)


def test_time_and_scale_stand_in_the_first_picture_alone() -> None:
    scenario = scenes.straight_road()
    same = {"BC": several(scenario, 0.0, 0.0), "CAT-K": several(scenario, 0.0, 0.0)}
    page = next(rollout_grid(scenario, same, size=SIZE, legend=False))
    first, *others = (
        page[-SIZE - 8 : -8, left : left + SIZE]
        for left in (8, 10 + SIZE, 18 + 2 * SIZE, 20 + 3 * SIZE)
    )
    for other in others:
        np.testing.assert_array_equal(other, others[0])
    assert (first != others[0]).any(axis=-1).mean() > 0.01


def test_collisions_and_vehicles_off_the_road_are_marked() -> None:
    scenario = scenes.straight_road()
    log = scenario.log
    first = log.xy[:1].expand_as(log.xy)
    crashed = rollout_of(scenario, log.replace(xy=first))
    astray = rollout_of(scenario, moved(scenario, 0.0, 50.0))
    driven = Rollout.stack([crashed, astray])
    page = next(rollout_grid(scenario, {"BC": driven}, size=300, metres=200.0, legend=False))
    halves = page[:, :309], page[:, 309:]
    seen = [
        [bool((half == color).all(axis=-1).any()) for half in halves]
        for color in (colors.COLLISION, colors.OFFROAD)
    ]
    assert seen == [[True, False], [False, True]]


def test_pedestrians_off_the_road_are_not_marked() -> None:
    scenario = scenes.straight_road()
    logged = rollout_of(scenario, scenario.log)
    walks = offroad_indication(scenario.log, scenario).value[1] > 0
    assert scenario.agents.type[1] == AgentType.PEDESTRIAN
    assert walks.any()
    page = next(rollout_grid(scenario, {"log": logged}, size=300, metres=200.0, legend=False))
    assert not (page == colors.OFFROAD).all(axis=-1).any()


def test_thirty_two_rollouts_fill_a_page() -> None:
    scenario = scenes.straight_road()
    page = next(rollout_grid(scenario, {"CAT-K": rollout_of(scenario, scenario.log).repeat(32)}))
    assert 1600 < page.shape[1] < 1700
    assert 900 < page.shape[0] < 1100


def test_a_film_has_a_page_for_each_step() -> None:
    scenario = scenes.straight_road()
    driven = {"CAT-K": several(scenario, 0.0, 1.0)}
    assert sum(1 for _ in rollout_grid(scenario, driven, size=16, first_step=60)) == 31


def shortened(rollout: Rollout, num_steps: int) -> Rollout:
    return rollout.replace(simulated=rollout.simulated.slice(0, num_steps))


def block(page: Frame, index: int, size: int) -> Frame:
    """One of several policies' parts of a page, each of `size` pixels."""
    left = 8 + index * (size + 8)
    return page[:, left : left + size]


def test_shorter_rollouts_stay_as_they_end_until_the_longest_is_over() -> None:
    scenario = scenes.straight_road()
    whole = several(scenario, 0.0, 1.0)
    driven = {"IDM": shortened(whole, 85), "BC": whole, "CAT-K": shortened(whole, 88)}
    arguments = {"size": 64, "legend": False, "first_step": 84}
    pages = list(rollout_grid(scenario, driven, **arguments))
    assert len(pages) == 7
    for index, (name, each) in enumerate(driven.items()):
        alone = list(rollout_grid(scenario, {name: each}, **arguments))
        for step, page in enumerate(pages):
            wanted = block(alone[min(step, len(alone) - 1)], 0, 130)
            np.testing.assert_array_equal(block(page, index, 130), wanted)


def test_the_time_stands_where_it_runs_to_the_end() -> None:
    scenario = scenes.straight_road()
    logged = rollout_of(scenario, scenario.log)
    driven = {"IDM": shortened(logged, 41), "BC": logged}
    arguments = {"size": SIZE, "legend": False, "first_step": 88}
    pages = list(rollout_grid(scenario, driven, **arguments))
    alone = list(rollout_grid(scenario, {"BC": logged}, **arguments))
    for page, timed in zip(pages, alone, strict=True):
        np.testing.assert_array_equal(block(page, 1, SIZE), block(timed, 0, SIZE))
        assert (block(page, 0, SIZE) != block(alone[0], 0, SIZE))[:60, :80].any()


def test_a_picture_shows_rollouts_of_any_length_as_they_end(tmp_path: Path) -> None:
    scenario = scenes.straight_road()
    whole = several(scenario, 0.0, 1.0)
    driven = {"BC": whole, "CAT-K": shortened(whole, 51)}
    arguments = {"size": 64, "legend": False, "first_step": 20}
    both = iio.imread(write_rollout_grid(scenario, driven, tmp_path / "both.png", **arguments))
    for index, (name, each) in enumerate(driven.items()):
        path = write_rollout_grid(scenario, {name: each}, tmp_path / "one.png", **arguments)
        np.testing.assert_array_equal(block(both, index, 130), block(iio.imread(path), 0, 130))


def test_one_episode_needs_no_batch() -> None:
    scenario = scenes.straight_road()
    page = next(rollout_grid(scenario, {"log": rollout_of(scenario, scenario.log)}, legend=False))
    assert page.shape[1] == 600 + 2 * 8


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".webp"])
def test_a_picture_shows_the_end_with_all_trails(tmp_path: Path, suffix: str) -> None:
    scenario = scenes.straight_road()
    driven = {"BC": several(scenario, 0.0, 1.0), "CAT-K": several(scenario, 2.0, 3.0)}
    path = write_rollout_grid(scenario, driven, tmp_path / "new" / f"grid{suffix}", size=64)
    wanted = next(rollout_grid(scenario, driven, size=64, first_step=90, trail_steps=80))
    read = iio.imread(path)
    assert read.shape == wanted.shape
    assert np.abs(read.astype(int) - wanted).mean() < (1e-9 if suffix.lower() == ".png" else 5)


def test_a_film_is_written_where_the_path_is_one(tmp_path: Path) -> None:
    scenario = scenes.straight_road()
    driven = {"BC": several(scenario, 0.0, 1.0)}
    arguments = {"size": 16, "first_step": 80, "legend": False}
    path = write_rollout_grid(scenario, driven, tmp_path / "grid.gif", **arguments)
    assert len(iio.imread(path)) == 11


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    scenario = scenes.straight_road()
    one = rollout_of(scenario, scenario.log)
    with pytest.raises(ValueError, match="no rollout"):
        rollout_grid(scenario, {})
    with pytest.raises(ValueError, match=r"of CAT-K, .* got the batch shape \(2, 3\)"):
        rollout_grid(scenario, {"CAT-K": one.repeat(3).repeat(2)})
    with pytest.raises(ValueError, match=r"as many .*'BC': 1, 'CAT-K': 2"):
        rollout_grid(scenario, {"BC": one, "CAT-K": one.repeat(2)})
    with pytest.raises(ValueError, match=r"one world"):
        rollout_grid(scenario.repeat(2), {"BC": one})
    for first_step in (-1, 91):
        with pytest.raises(ValueError, match=f"one of 91 steps, got step {first_step}"):
            rollout_grid(scenario, {"BC": one}, first_step=first_step)
    for path in ("grid.pdf", "grid"):
        with pytest.raises(ValueError, match=rf"one of \.png.*\.gif, got '{path}'"):
            write_rollout_grid(scenario, {"BC": one}, tmp_path / path)
    with pytest.raises(ValueError, match="no rollout"):
        write_rollout_grid(scenario, {}, tmp_path / "grid.png")
    assert not list(tmp_path.iterdir())


def test_a_grid_has_no_gap_where_it_can() -> None:
    counts = {1: 1, 2: 2, 3: 2, 4: 2, 8: 4, 16: 4, 32: 8}
    assert {count: _columns(count) for count in counts} == counts
    for count in range(1, 65):
        columns = _columns(count)
        assert 0 <= columns * -(-count // columns) - count < columns


def test_pictures_are_laid_row_by_row() -> None:
    frames = [np.full((4, 6, 3), gray, dtype=np.uint8) for gray in (10, 20, 30)]
    page = tiled(frames, 2)
    assert page.shape == (10, 14, 3)
    assert [int(page[row, column, 0]) for row in (0, 9) for column in (0, 13)] == [10, 20, 30, 255]
    assert torch.tensor(page[4:6]).unique().tolist() == [255]
