"""The examples of docstrings run, and give what they say."""

import doctest
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import catk_sim
from catk_sim.datasets import batching
from catk_sim.envs import WaymoEnv, WaymoVectorEnv
from catk_sim.metrics.planning.ego_metrics import evaluate_ego
from catk_sim.metrics.sim_agents import SimAgentsMetric
from catk_sim.metrics.summary import summarize_rollouts
from catk_sim.planning.loading import load_planner
from catk_sim.planning.route import Route
from catk_sim.planning.simulation import drive
from catk_sim.rollout import rollout
from catk_sim.tokens import MotionVocabulary, tokenize
from catk_sim.visualization import render_state, rollout_grid, write_video
from catk_sim.visualization.figures import plot_learning_curves, plot_rollouts_over_log

ROOT = Path(__file__).resolve().parents[1]

ENTRY_POINTS = (
    batching.collate,
    catk_sim.open_scenarios,
    drive,
    evaluate_ego,
    load_planner,
    MotionVocabulary,
    plot_learning_curves,
    plot_rollouts_over_log,
    render_state,
    rollout,
    rollout_grid,
    Route,
    SimAgentsMetric,
    summarize_rollouts,
    tokenize,
    WaymoEnv,
    WaymoVectorEnv,
    write_video,
)
"""What a reader looks up first. All have an example."""


def examples() -> list[doctest.DocTest]:
    files = sorted(
        file.relative_to(ROOT)
        for package in ("catk_sim", "policies", "trainers")
        for file in (ROOT / package).rglob("*.py")
        if ">>> " in file.read_text(encoding="utf-8")
    )
    names = (".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files)
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for name in names for test in finder.find(import_module(name)) if test.examples]


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_an_example_gives_what_it_says(test: doctest.DocTest) -> None:
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    results = runner.run(test, out=told.append)
    assert results.attempted > 0
    assert results.failed == 0, "".join(told)


@pytest.mark.parametrize("thing", ENTRY_POINTS, ids=lambda thing: thing.__name__)
def test_what_a_reader_looks_up_first_has_an_example(thing: type | Callable[..., Any]) -> None:
    assert ">>> " in (thing.__doc__ or "")
