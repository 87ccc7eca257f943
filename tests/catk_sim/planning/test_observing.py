"""What planners see: all that is so far, and nothing that is to come."""

import gc
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS
from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.datatypes import RoadGraph, Scenario, SimState, Trajectory
from catk_sim.planning.drivers import PlannerDriver
from catk_sim.planning.observing import ego_history, make_context, observe
from catk_sim.planning.simulation import drive
from tests.catk_sim.planning.planners import Recording
from tests.scenes import straight_road

STEP = 25
"""A step at which tests look."""


def history_at(scenario: Scenario, step: int) -> Trajectory:
    return scenario.log.slice(step + 1 - HISTORY_STEPS, step + 1)


def seen_at(scenario: Scenario, step: int) -> Any:
    return observe(scenario, history_at(scenario, step), step)


def test_a_planner_sees_the_ego_and_everybody_else() -> None:
    seen = seen_at(straight_road(), 15)
    assert seen.step == 5
    assert seen.ego.xy.tolist() == [[x, -2] for x in range(-35, -24)]
    assert seen.ego.velocity.tolist() == [[10, 0]] * 11
    assert seen.agents.id.tolist() == [101, 102]
    assert seen.agents.type.tolist() == [2, 1]
    np.testing.assert_allclose(seen.agents.size[1], [4.8, 2.0, 1.5], rtol=1e-6)
    assert seen.agents.xy[0].tolist() == [[10, 6]] * 11
    # The parked car enters at step 6, so the first of the steps 5 to 15 is without it.
    assert seen.agents.valid.tolist() == [[True] * 11, [False] + [True] * 10]
    assert seen.agents.xy[1].tolist() == [[0, 0]] + [[40, -2]] * 10


def test_whoever_is_not_seen_is_not_listed() -> None:
    scenario = straight_road()
    valid = scenario.log.valid.clone()
    valid[2, :50] = False
    hidden = scenario.replace(log=scenario.log.replace(valid=valid))
    assert seen_at(hidden, 49).agents.id.tolist() == [101]
    assert seen_at(hidden, 50).agents.id.tolist() == [101, 102]
    # Who left is listed as long as the history tells of it.
    assert seen_at(scenario, 70).agents.id.tolist() == [101, 102]
    assert seen_at(scenario, 71).agents.id.tolist() == [101]


def test_the_history_of_the_ego_has_no_gap() -> None:
    scenario = straight_road()
    valid = scenario.log.valid.clone()
    valid[0, 4] = False
    gap = scenario.replace(log=scenario.log.replace(valid=valid))
    history = ego_history(gap, history_at(gap, CURRENT_STEP))
    assert history.xy[:, 0].tolist() == [-35, -34, -33, -32, -31, -30]
    assert history.heading.shape == (6,)
    assert history.velocity.shape == (6, 2)


def test_lights_are_those_of_the_step() -> None:
    lights = [seen_at(straight_road(), step).traffic_lights for step in (39, 40)]
    assert [one.state.tolist() for one in lights] == [[6], [4]]
    assert lights[0].lane.tolist() == [1]
    assert lights[0].stop_point.tolist() == [[60, -2]]
    dark = straight_road().traffic_lights
    dark = dark.replace(valid=torch.arange(91)[None] != 30)
    assert seen_at(straight_road().replace(traffic_lights=dark), 30).traffic_lights.lane.size == 0


def test_beyond_the_log_lights_stay_as_they_are() -> None:
    scenario = straight_road()
    lights = observe(scenario, history_at(scenario, 90), 120).traffic_lights
    assert lights.state.tolist() == [4]


def test_the_context_tells_where_to_go() -> None:
    context = make_context(straight_road(), horizon=80, seed=7, with_log=False)
    assert context.scenario_id == "straight_road"
    assert context.goal.tolist() == [50, -2, 0]
    np.testing.assert_allclose(context.ego_size, [4.8, 2.0, 1.5], rtol=1e-6)
    assert (context.step_seconds, context.horizon, context.seed) == (0.1, 80, 7)
    assert context.route.lane_id[0] == 1
    assert torch.equal(context.roadgraph.xyz, straight_road().roadgraph.xyz)
    assert context.log is None


def test_the_goal_is_where_the_log_last_has_the_ego() -> None:
    scenario = straight_road()
    valid = scenario.log.valid.clone()
    valid[0, 50:] = False
    short = scenario.replace(log=scenario.log.replace(valid=valid))
    assert make_context(short, horizon=80, seed=0, with_log=False).goal.tolist() == [9, -2, 0]


def test_an_oracle_is_shown_a_copy_of_the_log() -> None:
    scenario = straight_road()
    context = make_context(scenario, horizon=80, seed=0, with_log=True)
    assert context.log is not None
    assert torch.equal(context.log.log.xy, scenario.log.xy)
    context.log.log.xy.zero_()
    assert scenario.log.xy.any()


def test_what_will_happen_changes_nothing_that_is_seen() -> None:
    scenario = generate_scenario(5).to(torch.float32)
    generator = torch.Generator().manual_seed(0)

    def scrambled(tensor: Tensor) -> Tensor:
        later = tensor.clone()
        if tensor.dim() >= 2 and tensor.shape[1] == scenario.log.num_steps:
            future = later[:, STEP + 1 :]
            if tensor.dtype == torch.bool:
                future.copy_(torch.rand(future.shape, generator=generator) < 0.5)
            else:
                future.random_(0, 9, generator=generator)
        return later

    other = scenario.replace(
        log=scenario.log.map(scrambled), traffic_lights=scenario.traffic_lights.map(scrambled)
    )
    assert not torch.equal(other.log.xy, scenario.log.xy)
    one, two = (_arrays(seen_at(each, STEP)) for each in (scenario, other))
    assert len(one) > 10
    for ours, theirs in zip(one, two, strict=True):
        assert np.array_equal(ours, theirs)


def test_nothing_that_is_seen_leads_to_the_log() -> None:
    """Neither a record of the future nor an array that is a view of one."""
    planner = Recording()
    drive(PlannerDriver(lambda: planner), [generate_scenario(5).to(torch.float32)], num_steps=2)
    (context,) = planner.contexts
    num_steps = 91
    for root in (context, *planner.inputs):
        found = _reachable(root)
        for thing in found:
            assert not isinstance(thing, Scenario | Trajectory | SimState)
            if isinstance(thing, np.ndarray):
                assert thing.base is None
                assert num_steps not in thing.shape
            if isinstance(thing, Tensor):
                storage = thing.untyped_storage().nbytes()
                assert storage == thing.numel() * thing.element_size()
                assert num_steps not in thing.shape
        assert any(isinstance(thing, np.ndarray) for thing in found)
    assert any(isinstance(thing, RoadGraph) for thing in _reachable(context))


def test_what_a_planner_does_to_its_input_stays_with_it() -> None:
    class Vandal(Recording):
        def plan(self, input: Any) -> np.ndarray:
            plan = super().plan(input)
            for array in _arrays(input):
                array.fill(0)
            for context in self.contexts:
                context.roadgraph.xyz.zero_()
                context.route.xy.zero_()
            return plan

    # In float32, which is not copied for being simulated.
    scenario = generate_scenario(5).to(torch.float32)
    before = scenario.roadgraph.xyz.clone()
    one, two = (
        drive(PlannerDriver(make), [scenario], num_steps=5).rollout for make in (Recording, Vandal)
    )
    assert torch.equal(one.simulated.xy, two.simulated.xy)
    assert torch.equal(scenario.roadgraph.xyz, before)


def test_seeds_differ_between_scenarios() -> None:
    made: list[Recording] = []

    def make() -> Recording:
        made.append(Recording())
        return made[-1]

    drive(PlannerDriver(make), [straight_road(), straight_road()], num_steps=1, seed=4)
    assert [planner.contexts[0].seed for planner in made] == [4, 5]


def _arrays(record: Any) -> list[np.ndarray]:
    if isinstance(record, np.ndarray):
        return [record]
    return [
        array
        for value in vars(record).values()
        if not isinstance(value, int | str)
        for array in _arrays(value)
    ]


def _reachable(root: Any) -> list[Any]:
    """Lists what references lead to, classes and code aside."""
    found: dict[int, Any] = {}
    waiting = [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in found or isinstance(thing, type | FunctionType | ModuleType):
            continue
        found[id(thing)] = thing
        waiting += gc.get_referents(thing)
    return list(found.values())


@pytest.mark.parametrize("leak", ["view", "record"])
def test_a_leak_would_be_found(leak: str) -> None:
    scenario = straight_road()
    seen = seen_at(scenario, STEP)
    array = scenario.log.xy.numpy()[0, :11]
    broken = type(seen.ego)(
        xy=array if leak == "view" else seen.ego.xy,
        heading=seen.ego.heading,
        velocity=seen.ego.velocity,
    )
    if leak == "record":
        object.__setattr__(broken, "log", scenario)
    found = _reachable(broken)
    views = [one for one in found if isinstance(one, np.ndarray) and one.base is not None]
    assert views or any(isinstance(one, Scenario) for one in found)
