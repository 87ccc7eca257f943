import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from catk_sim.datatypes import Rollout, Scenario
from catk_sim.visualization import colors
from catk_sim.visualization.figures import (
    _draw_stages,
    _in_sequence,
    _running_mean,
    plot_learning_curves,
    plot_rollouts_over_log,
)
from tests import scenes
from tests.catk_sim.visualization.episodes import moved, rollout_of

ORANGE = colors.POLICIES[0]


def episode(scenario: Scenario, y: float) -> Rollout:
    return rollout_of(scenario, moved(scenario, 0.0, y))


def near(picture: np.ndarray, color: colors.Color, tolerance: int = 40) -> np.ndarray:
    return np.abs(picture[..., :3].astype(int) - color).max(axis=-1) < tolerance


def records(stage: str, count: int, **first: float) -> list[dict[str, Any]]:
    return [
        {"stage": stage, "step": step} | {name: value / step for name, value in first.items()}
        for step in range(1, count + 1)
    ]


def test_each_policy_has_its_panel_and_its_colour(tmp_path: Path) -> None:
    scenario = scenes.straight_road()
    rollouts = {"BC": episode(scenario, 8.0), "CAT-K": episode(scenario, -8.0)}
    picture = iio.imread(plot_rollouts_over_log(scenario, rollouts, tmp_path / "figure.png"))
    panels = picture[: int(0.85 * len(picture))]
    left, right = np.array_split(panels, 2, axis=1)
    assert near(left, colors.POLICIES[0]).sum() > 50
    assert near(right, colors.POLICIES[1]).sum() > 50
    assert not near(left, colors.POLICIES[1]).any()
    assert not near(right, colors.POLICIES[0]).any()


@pytest.fixture
def panel(tmp_path: Path) -> np.ndarray:
    """A hundred metres around the log of the sdc; its rollout is 20 m north of it."""
    scenario = scenes.straight_road()
    rollout = episode(scenario, 20.0)
    final = rollout.final.replace(controlled=scenario.agents.is_sdc)
    path = plot_rollouts_over_log(
        scenario, {"BC": rollout.replace(final=final)}, tmp_path / "figure.png", metres=100
    )
    picture = iio.imread(path)[..., :3]
    dark = picture.max(axis=-1) < 160
    rows, columns = (np.flatnonzero(dark.mean(axis=axis) > 0.7) for axis in (1, 0))
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def test_a_rollout_lies_where_it_led(panel: np.ndarray) -> None:
    rows = np.flatnonzero(near(panel, colors.POLICIES[0]).any(axis=1))
    assert len(panel) / 2 - np.median(rows) == pytest.approx(0.2 * len(panel), abs=2)


def test_the_log_is_a_dashed_line(panel: np.ndarray) -> None:
    middle = panel[len(panel) // 2 - 1 : len(panel) // 2 + 2]
    # The 80 m that the sdc drives are the middle of the hundred; it starts in a dark box.
    dashes = (middle.max(axis=-1) < 100).any(axis=0)[int(0.2 * len(panel)) : int(0.85 * len(panel))]
    assert 0.5 < dashes.mean() < 0.9


def test_controlled_agents_are_dark_where_they_start(panel: np.ndarray) -> None:
    # The sdc starts 40 m west of the middle. Its box, half a metre beside the log:
    row = panel[int(0.505 * len(panel))]
    box = np.flatnonzero(near(row, colors.GRAY, 12)) * 100 / len(panel)
    assert box[0] == pytest.approx(10 - 2.4, abs=0.4)
    assert box[-1] == pytest.approx(10 + 2.4, abs=0.4)


def test_many_rollouts_of_a_policy_share_a_panel(tmp_path: Path) -> None:
    scenario = scenes.straight_road()
    one = episode(scenario, 8.0)
    many = Rollout.stack([episode(scenario, y) for y in (8.0, 12.0, 16.0)])
    orange = []
    for rollouts in (one, many):
        path = plot_rollouts_over_log(scenario, {"BC": rollouts}, tmp_path / "figure.png")
        red, _, blue = iio.imread(path)[..., :3].astype(int).transpose(2, 0, 1)
        orange.append((red - blue > 60).sum())
    assert orange[1] > 2 * orange[0]


def test_agents_that_are_not_controlled_have_no_trajectory(tmp_path: Path) -> None:
    scenario = scenes.straight_road()
    rollout = episode(scenario, 8.0)
    final = rollout.final.replace(controlled=torch.zeros(3, dtype=torch.bool))
    path = plot_rollouts_over_log(
        scenario, {"BC": rollout.replace(final=final)}, tmp_path / "figure.png", metres=120
    )
    picture = iio.imread(path)
    assert not near(picture[: int(0.85 * len(picture))], colors.POLICIES[0]).any()


def test_an_agent_that_left_is_not_drawn_any_further(tmp_path: Path) -> None:
    scenario = scenes.straight_road()
    motion = moved(scenario, 0.0, 8.0)
    gone = motion.valid.clone()
    gone[:, 11:] = False
    orange = []
    for valid in (motion.valid, gone):
        rollout = rollout_of(scenario, motion.replace(valid=valid))
        path = plot_rollouts_over_log(scenario, {"BC": rollout}, tmp_path / "figure.png")
        picture = iio.imread(path)
        orange.append(near(picture[: int(0.85 * len(picture))], colors.POLICIES[0]).sum())
    assert orange[0] > 0
    assert orange[1] == 0


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_the_suffix_chooses_the_format(tmp_path: Path, suffix: str) -> None:
    scenario = scenes.straight_road()
    path = tmp_path / "folder" / f"figure{suffix}"
    rollouts = {"BC": episode(scenario, 1.0)}
    assert plot_rollouts_over_log(scenario, rollouts, path, captions={"BC": "ADE 1 m"}) == path
    magic = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(magic)


def test_a_caption_is_written(tmp_path: Path) -> None:
    scenario = scenes.straight_road()
    rollouts = {"BC": episode(scenario, 1.0)}
    path = tmp_path / "figure.svg"
    sizes = [
        len(plot_rollouts_over_log(scenario, rollouts, path, captions=captions).read_bytes())
        for captions in ({"BC": ""}, {"BC": "ADE 1.23 m"})
    ]
    assert sizes[1] > sizes[0] + 500


def test_equal_rollouts_give_equal_figures(tmp_path: Path) -> None:
    scenario = scenes.straight_road().to(torch.float64)
    files = [
        plot_rollouts_over_log(scenario, {"BC": episode(scenario, 3.0)}, tmp_path / name)
        for name in ("one.png", "other.png")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_is_no_rollout_of_the_scenario_is_refused(tmp_path: Path) -> None:
    scenario = scenes.straight_road()
    rollout = episode(scenario, 0.0)
    path = tmp_path / "figure.png"
    with pytest.raises(ValueError, match="no rollout"):
        plot_rollouts_over_log(scenario, {}, path)
    with pytest.raises(ValueError, match=r"batch shape \(2,\)"):
        plot_rollouts_over_log(Scenario.stack([scenario, scenario]), {"BC": rollout}, path)
    with pytest.raises(ValueError, match=r"3 agents .* got the shape \(2, 2, 3, 91\)"):
        plot_rollouts_over_log(scenario, {"BC": rollout.repeat(2).repeat(2)}, path)
    assert not path.exists()


def test_a_curve_is_drawn_for_each_run(tmp_path: Path) -> None:
    runs = {"seed 0": records("bc", 20, loss=4.0), "seed 1": records("bc", 20, loss=2.0)}
    picture = iio.imread(plot_learning_curves(runs, tmp_path / "curves.png"))
    for color in colors.POLICIES[:2]:
        assert near(picture, color).sum() > 100
    assert not near(picture, colors.POLICIES[2]).any()


def test_each_metric_has_its_panel(tmp_path: Path) -> None:
    run = [*records("bc", 5, loss=1.0), *records("bc", 5, ade=2.0), *records("catk", 3, miss=1.0)]
    widths = [
        iio.imread(plot_learning_curves({"run": run}, tmp_path / "curves.png", metrics=names)).shape
        for names in (["loss"], ["loss", "ade"], None)
    ]
    assert widths[1][1] == pytest.approx(2 * widths[0][1], rel=0.1)
    assert widths[2][1] == pytest.approx(3 * widths[0][1], rel=0.1)


def test_a_stage_continues_where_the_one_before_it_ended() -> None:
    run = [*records("bc", 3, loss=1.0), *records("catk", 2, loss=1.0), *records("ppo", 1, loss=1.0)]
    assert [record.step for record in _in_sequence(run)] == [1, 2, 3, 4, 5, 6]


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    run = records("bc", 150, loss=100.0)
    broken = [*run]
    broken[75] = {"stage": "bc", "step": 76, "loss": float("nan")}
    drawn = [
        near(iio.imread(plot_learning_curves({"run": each}, tmp_path / "curves.png")), ORANGE).sum()
        for each in (run, broken)
    ]
    assert drawn[1] == pytest.approx(drawn[0], rel=0.1)


def test_stages_are_named_where_they_begin() -> None:
    axes = Figure().subplots()
    run = [*records("bc", 30, loss=1.0), *records("catk", 20, loss=1.0)]
    _draw_stages(axes, _in_sequence(run))
    names = [text for text in axes.texts if isinstance(text, Annotation)]
    assert [(name.get_text(), name.xy[0]) for name in names] == [("bc", 1), ("catk", 30)]


def test_curves_name_their_stages(tmp_path: Path) -> None:
    pictures = [
        plot_learning_curves(
            {"run": [*records("bc", 9, loss=1.0), *records(second, 9, loss=1.0)]},
            tmp_path / f"{second}.png",
        ).read_bytes()
        for second in ("catk", "ppo")
    ]
    assert pictures[0] != pictures[1]


def test_a_single_stage_needs_no_name() -> None:
    axes = Figure().subplots()
    _draw_stages(axes, _in_sequence(records("bc", 30, loss=1.0)))
    assert not axes.texts


def test_a_noisy_curve_gets_its_running_mean() -> None:
    values = np.arange(200.0) + np.tile([1.0, -1.0], 100)
    smooth = _running_mean(values)
    assert smooth.shape == values.shape
    np.testing.assert_allclose(smooth[10:-10], np.arange(200.0)[10:-10], atol=0.2)
    assert _running_mean(np.full(150, 3.0)) == pytest.approx(3.0)


def test_a_metric_that_no_run_has_is_refused(tmp_path: Path) -> None:
    runs = {"run": records("bc", 3, loss=1.0)}
    with pytest.raises(ValueError, match=r"\['loss'\], wanted \['ade'\]"):
        plot_learning_curves(runs, tmp_path / "curves.png", metrics=["ade"])
    with pytest.raises(ValueError, match=r"metrics \[\]"):
        plot_learning_curves({"run": []}, tmp_path / "curves.png")


@pytest.mark.slow
def test_pictures_need_no_matplotlib_and_figures_no_pyplot() -> None:
    program = (
        "import sys, catk_sim.visualization; assert 'matplotlib' not in sys.modules;"
        "import catk_sim.visualization.figures; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
