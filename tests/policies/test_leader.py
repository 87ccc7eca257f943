import math

import pytest
import torch
from torch import Tensor

from catk_sim.datasets.batching import collate
from catk_sim.datasets.synthetic import load_benchmark
from catk_sim.datatypes import SimState
from catk_sim.dynamics import StateDynamics
from catk_sim.lane_following import LaneRoutes
from catk_sim.rollout import sim_agents
from catk_sim.simulator import Simulator
from policies import leader
from policies.leader import find_leader
from tests.policies.test_idm import CAR, on_the_road


@pytest.fixture(scope="module")
def crowd() -> tuple[SimState, LaneRoutes, Tensor]:
    """Three scenes of different size, and how far along its route everybody is.

    They stand where their routes have them, or up to 2 m beside that.
    """
    batch = collate([scenario.to(torch.float32) for scenario in load_benchmark()[:3]])
    state = Simulator(StateDynamics()).reset(batch, sim_agents(batch))
    routes = LaneRoutes.from_state(state)
    generator = torch.Generator().manual_seed(0)
    progress = 60 * torch.rand(routes.length.shape, generator=generator)
    xy, heading = routes.pose_at(progress)
    xy = xy + 4 * torch.rand(xy.shape, generator=generator) - 2
    now = state.current
    moved = now.replace(
        xy=torch.where(routes.valid[..., None, None], xy[..., None, :], now.xy),
        heading=torch.where(routes.valid[..., None], heading[..., None], now.heading),
    )
    history = state.history
    history = type(history).join([history.slice(0, history.num_steps - 1), moved])
    return state.replace(history=history), routes, progress


def plain(state: SimState, routes: LaneRoutes, progress: Tensor) -> tuple[list[float], list[float]]:
    """The same for a single scene, pair by pair."""
    now, size = state.current, state.scenario.agents.size.tolist()
    xy, heading = now.xy[:, 0].tolist(), now.heading[:, 0].tolist()
    velocity, gaps, speeds = now.velocity[:, 0].tolist(), [], []
    for me in range(len(xy)):
        best, speed = math.inf, 0.0
        for you in range(len(xy)):
            if you == me or not (routes.valid[me] and now.valid[you, 0]):
                continue
            ahead = [min(int(progress[me]) + metre, 400) for metre in range(0, 101, 2)]
            places = [routes.xy[me, arc].tolist() for arc in ahead]
            near = min(range(len(ahead)), key=lambda k: math.dist(places[k], xy[you]))
            way = float(routes.heading[me, ahead[near]])
            x, y = (xy[you][axis] - places[near][axis] for axis in (0, 1))
            cos, sin = math.cos(way), math.sin(way)
            along, aside = x * cos + y * sin, y * cos - x * sin
            turn = heading[you] - way
            length, width = size[you][0] / 2, size[you][1] / 2
            reach = length * abs(math.cos(turn)) + width * abs(math.sin(turn))
            breadth = length * abs(math.sin(turn)) + width * abs(math.cos(turn))
            distance = ahead[near] - float(progress[me]) + along
            gap = distance - size[me][0] / 2 - reach
            if abs(aside) < size[me][1] / 2 + breadth and distance > 0 and gap < best:
                best, speed = gap, velocity[you][0] * cos + velocity[you][1] * sin
        gaps.append(best)
        speeds.append(speed)
    return gaps, speeds


@pytest.mark.slow
def test_it_is_the_nearest_of_all_that_are_compared_one_by_one(
    crowd: tuple[SimState, LaneRoutes, Tensor],
) -> None:
    state, routes, progress = crowd
    gap, speed = find_leader(state, routes, progress)
    found = 0
    for scene in range(3):
        gaps, speeds = plain(state.select(scene), routes.select(scene), progress[scene])
        assert gap[scene].tolist() == pytest.approx(gaps, abs=1e-3)  # float32, 100 m away
        assert speed[scene].tolist() == pytest.approx(speeds, abs=1e-3)
        found += sum(math.isfinite(one) for one in gaps)
    assert found > 10


def test_scenes_and_parts_do_not_matter(
    crowd: tuple[SimState, LaneRoutes, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, routes, progress = crowd
    gap, speed = find_leader(state, routes, progress)
    monkeypatch.setattr(leader, "MAX_PAIRS", 7)
    for scene in range(3):
        alone = find_leader(state.select(scene), routes.select(scene), progress[scene])
        assert torch.equal(alone[0], gap[scene])
        assert torch.equal(alone[1], speed[scene])


def test_nobody_is_ahead_of_who_has_no_route_or_is_alone(
    crowd: tuple[SimState, LaneRoutes, Tensor],
) -> None:
    state, routes, progress = crowd
    lost = routes.replace(valid=torch.zeros_like(routes.valid))
    history = state.history
    alone = state.replace(history=history.replace(valid=torch.zeros_like(history.valid)))
    for gap, speed in (find_leader(state, lost, progress), find_leader(alone, routes, progress)):
        assert gap.isinf().all()
        assert not speed.any()


def test_of_equally_near_ones_the_first_counts() -> None:
    scenario = on_the_road((CAR, -20.0, -2.0, 6.0), (CAR, 10.0, -2.0, 3.0), (CAR, 10.0, -2.0, 5.0))
    state = Simulator(StateDynamics()).reset(scenario, sim_agents(scenario))
    routes = LaneRoutes.from_state(state)
    gap, speed = find_leader(state, routes, torch.zeros(3))
    assert gap[0].item() == pytest.approx(30 - 4.8, abs=1e-4)
    assert speed[0].item() == pytest.approx(3.0)
