"""Pictures a second, on one core: `make benchmark`."""

import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.datatypes import Scenario
from catk_sim.visualization import BirdsEyeRenderer, rollout_frames, side_by_side, write_video
from catk_sim.visualization.framing import Follow
from tests.catk_sim.visualization.episodes import moved, rollout_of


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    yield
    cv2.setNumThreads(threads[0])
    torch.set_num_threads(threads[1])


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return generate_scenario(0, "signal").to(torch.float32)


# CPU time, so that neighbours on the machine do not count.
@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("follow", ["scene", "sdc"])
@pytest.mark.parametrize("size", [400, 800])
def test_drawing_an_episode_of_81_pictures(
    benchmark: BenchmarkFixture, scenario: Scenario, size: int, follow: Follow
) -> None:
    renderer = BirdsEyeRenderer(scenario, size=size, follow=follow)
    rollout = rollout_of(scenario, moved(scenario, 0.5, 0.5))
    frames = benchmark(lambda: sum(1 for _ in rollout_frames(rollout, renderer)))
    assert benchmark.stats is not None
    benchmark.extra_info["frames_per_second"] = frames / benchmark.stats["mean"]


@pytest.mark.benchmark(timer=time.process_time)
def test_drawing_the_map(benchmark: BenchmarkFixture, scenario: Scenario) -> None:
    rollout = rollout_of(scenario, scenario.log)
    benchmark(lambda: BirdsEyeRenderer(scenario, size=800).render(rollout.final))


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_filming_two_episodes_side_by_side(
    benchmark: BenchmarkFixture, scenario: Scenario, tmp_path: Path, suffix: str
) -> None:
    renderer = BirdsEyeRenderer(scenario, size=480)
    rollout = rollout_of(scenario, moved(scenario, 0.5, 0.5))

    def film() -> None:
        films = {name: rollout_frames(rollout, renderer) for name in ("BC", "CAT-K")}
        write_video(side_by_side(films), tmp_path / f"film{suffix}")

    benchmark(film)
