"""Red lights that are run: by hand, against a plain loop, and in the Sim Agents challenge."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, NUM_STEPS
from catk_sim.datasets.batching import collate
from catk_sim.datatypes import MapFeatureType, RoadGraph, TrafficLights, TrafficLightState
from catk_sim.metrics import traffic_lights
from catk_sim.metrics.box_trajectory import BoxTrajectory
from catk_sim.metrics.traffic_lights import SignalledLanes, traffic_light_violation
from tests import scenes
from tests.catk_sim.metrics.maps import map_of, polyline
from tests.catk_sim.metrics.test_kinematics import (
    CASES,
    GENERATION_CASES,
    boxes_of,
    golden_agents,
    golden_boxes,
    golden_features,
    golden_scene,
)

STOP, ARROW_STOP = TrafficLightState.STOP, TrafficLightState.ARROW_STOP
GO, UNKNOWN = TrafficLightState.GO, TrafficLightState.UNKNOWN
STREET = MapFeatureType.LANE_SURFACE_STREET
FIRST = torch.tensor([0])


def lights_of(
    *rows: tuple[int, list[TrafficLightState], tuple[float, float]],
) -> TrafficLights:
    """Lights of (lane, states, stop point). Where the state is UNKNOWN, it is not observed."""
    state = torch.tensor([states for _, states, _ in rows])
    stop = torch.tensor([[*point, 0.0] for _, _, point in rows], dtype=torch.float32)
    return TrafficLights(
        lane_id=torch.tensor([lane for lane, _, _ in rows]),
        state=state,
        stop_xyz=stop[:, None].expand(-1, state.shape[1], -1),
        valid=state != UNKNOWN,
    )


def crossing() -> RoadGraph:
    """Lanes 0 and 1 lead east, lane 2 north. The signals of the tests stop traffic at x = 100.

       y
    14 |              ^ 2
    10 | 1 >----|-----+-----|    the origin is far to the south-west
     5 | 0 >----|-----+-----|    points are 10 m apart
       +-------100---140---180--> x
    """
    east = [(float(x), 0.0) for x in range(20, 200, 10)]
    return map_of(
        [
            polyline(*[(x, 5.0) for x, _ in east]),
            polyline(*[(x, 10.0) for x, _ in east]),
            polyline(*[(145.0, float(y)) for y in range(-80, 100, 10)]),
        ],
        STREET,
    ).to(torch.float32)


def drive(*x: float, y: float = 5.0) -> BoxTrajectory:
    """One car that is at these places, one a step."""
    place = torch.tensor([x], dtype=torch.float32)
    return boxes_of(place, y=torch.full_like(place, y))


def batch_of(*scenarios: tuple[RoadGraph, TrafficLights]) -> SignalledLanes:
    """A padded batch of maps and lights, the latter of `NUM_STEPS`."""
    logged = scenes.straight_road()
    batch = collate(
        [logged.replace(roadgraph=one, traffic_lights=lights) for one, lights in scenarios]
    )
    return SignalledLanes.from_map(batch.roadgraph, batch.traffic_lights)


def violations(
    boxes: BoxTrajectory, lights: TrafficLights, roadgraph: RoadGraph | None = None
) -> list[bool]:
    """When the first agent runs a light."""
    lanes = SignalledLanes.from_map(crossing() if roadgraph is None else roadgraph, lights)
    return traffic_light_violation(boxes, lanes, FIRST)[0].tolist()


@pytest.mark.parametrize("case", [*CASES, *GENERATION_CASES])
def test_violations_are_those_of_the_challenge(case: str) -> None:
    expected = torch.from_numpy(golden_features(case)["traffic_light_violation_per_step"])
    boxes = golden_boxes(case)
    lanes = SignalledLanes.from_map(*golden_map())
    if case in GENERATION_CASES:
        boxes = boxes.replace(valid=torch.ones_like(boxes.valid))
        found = traffic_light_violation(boxes, lanes, golden_agents(case))
    else:
        boxes, lanes = boxes.slice(CURRENT_STEP), lanes.slice(CURRENT_STEP)
        found = traffic_light_violation(boxes, lanes, golden_agents(case))[..., 1:]
    assert found.equal(expected)
    assert int(found.sum()) == {"e_accelerate": 1, "g_scenario_gen_log": 3}.get(case, 0)


def golden_map() -> tuple[RoadGraph, TrafficLights]:
    """Map and lights in the frame of the file."""
    scenario = golden_scene()
    roadgraph, lights = scenario.roadgraph, scenario.traffic_lights
    return (
        roadgraph.replace(xyz=roadgraph.xyz + scenario.origin).to(torch.float32),
        lights.replace(stop_xyz=lights.stop_xyz + scenario.origin).to(torch.float32),
    )


def test_who_passes_the_stop_point_of_a_red_light_runs_it() -> None:
    lights = lights_of((0, [STOP] * 4, (100, 5)))
    assert violations(drive(90, 97, 103, 110), lights) == [False, False, True, False]


@pytest.mark.parametrize("state", list(TrafficLightState)[1:])
def test_only_stop_and_arrow_stop_forbid_to_go_on(state: TrafficLightState) -> None:
    lights = lights_of((0, [state] * 2, (100, 5)))
    assert any(violations(drive(97, 103), lights)) == (state in (STOP, ARROW_STOP))


@pytest.mark.parametrize(("before", "now"), [(GO, STOP), (STOP, GO)])
def test_the_light_at_the_step_beyond_it_counts(
    before: TrafficLightState, now: TrafficLightState
) -> None:
    lights = lights_of((0, [before, now], (100, 5)))
    assert violations(drive(97, 103), lights) == [False, now is STOP]


@pytest.mark.parametrize(
    "places",
    [
        (90, 99),  # stops before it
        (103, 97),  # backs up
        (95, 100, 105),  # is seen at the very stop point
    ],
)
def test_who_does_not_pass_the_stop_point_runs_no_light(places: tuple[float, ...]) -> None:
    lights = lights_of((0, [STOP] * len(places), (100, 5)))
    assert not any(violations(drive(*places), lights))


def test_the_light_of_another_lane_does_not_matter() -> None:
    lights = lights_of((0, [STOP] * 2, (100, 5)))
    assert not any(violations(drive(97, 103, y=10), lights))
    both = lights_of((0, [STOP] * 2, (100, 5)), (1, [ARROW_STOP] * 2, (100, 10)))
    assert any(violations(drive(97, 103, y=10), both))


def test_the_stop_segment_is_the_one_at_the_stop_point() -> None:
    """A lane that bends to the north: an agent on it passes a stop point after the bend."""
    bent = polyline(*[(float(x), 5.0) for x in range(100, 200, 10)], (190, 15), (190, 25))
    lights = lights_of((0, [STOP] * 2, (190, 20)))
    northward = boxes_of(torch.full((1, 2), 190.0), y=torch.tensor([[17.0, 23.0]]))
    roadgraph = map_of([bent, polyline((0, 900), (1, 900))], STREET).to(torch.float32)
    assert violations(northward, lights, roadgraph) == [False, True]


def test_an_agent_must_be_there_beyond_the_stop_point_but_not_before_it() -> None:
    lights = lights_of((0, [STOP] * 2, (100, 5)))
    boxes = drive(97, 103)
    before, after = torch.tensor([[True, False]]), torch.tensor([[False, True]])
    assert not any(violations(boxes.replace(valid=before), lights))
    assert violations(boxes.replace(valid=after), lights) == [False, True]


def test_a_light_that_was_not_observed_stopped_nobody() -> None:
    """Its stop point was the origin, which the car had passed already."""
    lights = lights_of((0, [UNKNOWN, STOP, STOP], (100, 5)))
    assert not any(violations(drive(97, 103, 110), lights))
    assert violations(drive(80, 97, 103), lights) == [False, False, True]


@pytest.mark.parametrize("kind", [MapFeatureType.LANE_FREEWAY, MapFeatureType.ROAD_EDGE_BOUNDARY])
def test_only_surface_streets_have_signals(kind: MapFeatureType) -> None:
    roadgraph = crossing()
    types = roadgraph.feature_type.clone()
    types[0] = kind
    lights = lights_of((0, [STOP] * 2, (100, 5)))
    assert not any(violations(drive(97, 103), lights, roadgraph.replace(feature_type=types)))


def test_a_lane_of_one_point_has_no_signal() -> None:
    """Else it would lead to the origin, where the car backs up to."""
    lights = lights_of((1, [STOP] * 2, (100, 5)))
    roadgraph = map_of([polyline((0, 0), (1, 0), (2, 0)), polyline((100, 5))], STREET)
    assert not any(violations(drive(103, 97), lights, roadgraph.to(torch.float32)))


def test_a_lane_does_not_go_on_to_the_padding() -> None:
    """A map of one lane and two points, in a batch with a larger map."""
    lights = lights_of((0, [STOP] * NUM_STEPS, (112, 0)))
    lane = map_of([polyline((100, 0), (110, 0))], STREET).to(torch.float32)
    boxes = drive(*[111] * (NUM_STEPS - 1), 113, y=0)
    assert violations(boxes, lights, lane)[-1]
    batch = batch_of((lane, lights), (crossing(), lights))
    assert traffic_light_violation(boxes.repeat(2), batch, FIRST.expand(2, 1))[0, 0, -1]


def test_signals_that_are_never_red_or_of_no_street_are_left_out() -> None:
    roadgraph = crossing()
    types = roadgraph.feature_type.clone()
    types[1] = MapFeatureType.LANE_FREEWAY
    lights = lights_of(*[(lane, [STOP], (100.0, 5.0)) for lane in (1, 2, 77)], (0, [GO], (100, 5)))
    lanes = SignalledLanes.from_map(roadgraph.replace(feature_type=types), lights)
    assert lanes.is_red.tolist() == [[True]]


def test_what_a_lane_is_listed_with_last_counts() -> None:
    go, stop = (0, [GO] * 2, (100.0, 5.0)), (0, [STOP] * 2, (100.0, 5.0))
    assert any(violations(drive(97, 103), lights_of(go, stop)))
    assert not any(violations(drive(97, 103), lights_of(stop, go)))
    # At the first step there is only the first row.
    later = (0, [UNKNOWN, STOP], (100.0, 5.0))
    assert violations(drive(97, 103), lights_of(go, later)) == [False, True]


def test_a_point_within_a_segment_counts_for_farther_away() -> None:
    """A car drives along A. B is 4 m beside it, but one of its points is near.

    B:        *----*        On A's long segment the car is 10 m from the last point, and WOSAC
    A:  *-----c-----*       takes twice as much: it is on B. With a point each metre it is on A.
    """
    lights = lights_of((0, [STOP] * 2, (108, 0)))
    other = polyline((109, 4), (119, 4))
    for spacing, runs_it in [(20, False), (1, True)]:
        lane = polyline(*[(float(x), 0.0) for x in range(100, 121, spacing)])
        roadgraph = map_of([lane, other], STREET).to(torch.float32)
        assert any(violations(drive(107, 110, y=0), lights, roadgraph)) == runs_it


def test_a_lane_that_is_not_the_longest_goes_on_to_the_origin() -> None:
    """So its last point counts like the others: the car is past it, and 3 m from another lane."""
    lights = lights_of((0, [STOP] * 2, (104, 0)))
    lane = polyline((100, 0), (110, 0))
    for other, runs_it in [
        (polyline((111, 3), (121, 3)), False),
        (polyline((111, 3), (121, 3), (131, 3)), True),
    ]:
        roadgraph = map_of([lane, other], STREET).to(torch.float32)
        assert any(violations(drive(103, 111, y=0), lights, roadgraph)) == runs_it


def test_beyond_the_end_of_the_longest_lane_the_end_is_what_counts() -> None:
    """The car is 10 m past it, which counts for 20 m and the 10 m of the segment; B is 35 m off."""
    lights = lights_of((0, [STOP] * 2, (109, 0)))
    lanes = [polyline((100, 0), (110, 0)), polyline((120, 35), (130, 35))]
    roadgraph = map_of(lanes, STREET).to(torch.float32)
    assert violations(drive(108, 120, y=0), lights, roadgraph) == [False, True]


def test_of_two_equally_near_lanes_the_first_counts() -> None:
    """Two lanes begin with the same segment."""
    roadgraph = map_of(
        [
            polyline((100, 5), (110, 5), (120, 9)),
            polyline((100, 5), (110, 5), (120, 1)),
        ],
        STREET,
    ).to(torch.float32)
    for lane in (0, 1):
        lights = lights_of((lane, [STOP] * 2, (103, 5)))
        assert any(violations(drive(102, 104), lights, roadgraph)) == (lane == 0)


def test_a_map_without_streets_or_lights_has_no_violation() -> None:
    lights = lights_of((0, [STOP] * 2, (100, 5)))
    edges = crossing()
    edges = edges.replace(feature_type=torch.full_like(edges.feature_type, 15))
    assert not any(violations(drive(97, 103), lights, edges))
    assert not any(violations(drive(97, 103), lights.map(lambda tensor: tensor[:0])))
    nothing = map_of([torch.zeros(0, 3)], STREET)
    assert not any(violations(drive(97, 103), lights, nothing))


def test_boxes_at_other_steps_than_the_lights_are_refused() -> None:
    lights = lights_of((0, [STOP] * 2, (100, 5)))
    with pytest.raises(ValueError, match="at the 2 steps of the lanes, got 3"):
        violations(drive(90, 97, 103), lights)


class Scene(NamedTuple):
    """A random junction."""

    boxes: BoxTrajectory
    roadgraph: RoadGraph
    lights: TrafficLights


def junction(seed: int, num_agents: int = 6, num_steps: int = 8) -> Scene:
    """Lanes that wind about each other and agents that jump about, at the origin or far from it.

    Some lanes are no streets, some have one point, some are listed twice, some are not on the map.
    """
    generator = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    center = torch.tensor([7000.0, -8000.0, 3.0]) * (seed % 2)
    lanes = []
    for _ in range(int(integers(2, 7))):
        points = int(integers(1, 40)) if integers(0, 4) else 25
        lanes.append(center + 4 * normal(3) + (0.4 * normal(3) + 0.7 * normal(points, 3)).cumsum(0))
    if integers(0, 2):  # two lanes begin with the same points
        lanes.append(torch.cat([lanes[0][:3], lanes[0][3:] + 1]))
    roadgraph = map_of(lanes, STREET)
    types = torch.where(integers(0, 8, len(lanes)) == 0, 1, roadgraph.feature_type)

    num_lights = int(integers(0, 12))
    lane = integers(0, len(lanes) + 1, num_lights)
    state = integers(0, 9, num_lights, num_steps)
    state = torch.where(integers(0, 2, num_lights, num_steps) == 1, 4, state)
    at = torch.stack([lanes[index % len(lanes)].mean(0) for index in lane.tolist()] or [center])
    stop = at[:num_lights, None] + 2 * normal(num_lights, 1, 3)
    jitter = normal(num_lights, num_steps, 3) * (integers(0, 3, num_lights) == 0)[:, None, None]
    lights = TrafficLights(
        lane_id=lane,
        state=state,
        stop_xyz=stop + jitter,
        valid=integers(0, 6, num_lights, num_steps) > 0,
    )

    x, y, _ = (center + 6 * normal(num_agents, num_steps, 3)).unbind(-1)
    boxes = boxes_of(x, y=y).replace(valid=integers(0, 5, num_agents, num_steps) > 0)
    return Scene(boxes, roadgraph.replace(feature_type=types), lights)


def plain_violations(scene: Scene, evaluated: Tensor) -> Tensor:
    """The definition, one step, agent and signal after the other, in float32."""
    boxes, roadgraph, lights = scene
    streets = {}
    for index, lane_id in enumerate(roadgraph.feature_id.tolist()):
        points = roadgraph.xyz[roadgraph.feature == index, :2].numpy()
        if roadgraph.feature_type[index] == STREET and len(points) >= 2:
            streets[lane_id] = points
    signals: dict[int, dict[int, tuple[int, np.ndarray]]] = {}
    for row, lane_id in enumerate(lights.lane_id.tolist()):
        for t in lights.valid[row].nonzero()[:, 0].tolist():
            seen = int(lights.state[row, t]), lights.stop_xyz[row, t, :2].numpy()
            signals.setdefault(lane_id, {})[t] = seen
    places = torch.stack([boxes.x, boxes.y], dim=-1).numpy()
    result = torch.zeros(len(evaluated), boxes.x.shape[1], dtype=torch.bool)
    absent = 0, np.zeros(2, np.float32)
    for lane_id in set(signals) & set(streets):
        for t in range(1, boxes.x.shape[1]):
            (_, stop_before), (state, stop) = (
                signals[lane_id].get(step, absent) for step in (t - 1, t)
            )
            _, *before = plain_nearest(stop_before, streets, [lane_id])
            _, *now = plain_nearest(stop, streets, [lane_id])
            for row, agent in enumerate(evaluated.tolist()):
                was, here = places[agent, t - 1], places[agent, t]
                result[row, t] |= bool(
                    state in (1, 4)
                    and boxes.valid[agent, t]
                    and plain_position(was, *before) < plain_position(stop_before, *before)
                    and plain_position(here, *now) > plain_position(stop, *now)
                    and plain_nearest(here, streets, list(streets))[0] == lane_id
                )
    return result


def plain_nearest(
    point: np.ndarray, streets: dict[int, np.ndarray], among: list[int]
) -> tuple[int, np.ndarray, np.ndarray]:
    """Lane, start and vector of the nearest segment."""
    longest = max(map(len, streets.values()))
    best, nearest = math.inf, (-1, np.zeros(2), np.zeros(2))
    for lane_id in among:
        points = np.concatenate([streets[lane_id], np.zeros((1, 2), np.float32)])
        for i in range(min(len(points), longest) - 1):
            start, along = points[i], points[i + 1] - points[i]
            t = min(max(plain_position(point, start, along), np.float32(0)), np.float32(1))
            x, y = (point - start) + t * along
            distance = np.sqrt(x * x + y * y)
            if distance < best:
                best, nearest = distance, (lane_id, start, along)
    return nearest


def plain_position(point: np.ndarray, start: np.ndarray, along: np.ndarray) -> np.float32:
    offset, squared = point - start, along[0] * along[0] + along[1] * along[1]
    dot = offset[0] * along[0] + offset[1] * along[1]
    return dot / squared if squared else np.float32(0)


def found_violations(scene: Scene, evaluated: Tensor) -> Tensor:
    lanes = SignalledLanes.from_map(scene.roadgraph, scene.lights)
    return traffic_light_violation(scene.boxes, lanes, evaluated)


@given(seed=st.integers(0, 2**31))
def test_violations_are_those_of_a_plain_loop(seed: int) -> None:
    scene, evaluated = junction(seed), torch.tensor([3, 0, 5, 1])
    assert found_violations(scene, evaluated).equal(plain_violations(scene, evaluated))


def test_random_junctions_have_many_violations() -> None:
    everyone = torch.arange(6)
    share = [found_violations(junction(seed), everyone).float().mean() for seed in range(40)]
    assert sum(share) / len(share) > 0.03


@given(seed=st.integers(0, 2**31), pairs=st.sampled_from([1, 100, 1 << 20]))
def test_how_the_search_is_cut_changes_nothing(seed: int, pairs: int) -> None:
    scene, everyone = junction(seed), torch.arange(6)
    expected = found_violations(scene, everyone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traffic_lights, "MAX_PAIRS", pairs)
        patch.setattr(traffic_lights, "SAMPLE_STRIDE", 1 + seed % 5)
        assert found_violations(scene, everyone).equal(expected)


@given(seed=st.integers(0, 2**31))
def test_permuting_agents_and_slicing_steps_commute_with_the_measure(seed: int) -> None:
    scene = junction(seed)
    lanes = SignalledLanes.from_map(scene.roadgraph, scene.lights)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    everything = traffic_light_violation(scene.boxes, lanes, torch.arange(6))
    permuted = scene.boxes.map(lambda tensor: tensor[order])
    late = traffic_light_violation(permuted.slice(3, 7), lanes.slice(3, 7), torch.arange(6))
    assert late[:, 1:].equal(everything[order, 4:7])


@given(seed=st.integers(0, 2**31))
def test_rollouts_and_scenes_do_not_see_each_other(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    worlds = [junction(seed + index, num_steps=NUM_STEPS) for index in range(2)]
    lanes = batch_of(*[(one.roadgraph, one.lights) for one in worlds])
    boxes = BoxTrajectory.stack([one.boxes for one in worlds]).repeat(3)
    boxes = boxes.replace(x=boxes.x + torch.randn(boxes.x.shape, generator=generator))
    evaluated = torch.tensor([[0, 3, 4], [5, 5, 2]])
    together = traffic_light_violation(boxes, lanes, evaluated)
    for rollout in range(3):
        for index, one in enumerate(worlds):
            alone = one._replace(boxes=boxes.select(rollout).select(index))
            assert together[rollout, index].equal(found_violations(alone, evaluated[index]))


@given(seed=st.integers(0, 2**31))
def test_moving_the_scene_moves_no_violation(seed: int) -> None:
    """If no lane is extended to the origin and every light is observed."""
    generator = torch.Generator().manual_seed(seed)
    # Multiples of 1/64 m stay exact when they are moved by whole metres.
    x = 100 + torch.randint(-640, 640, (4, 9), generator=generator) / 64
    y = 8 + torch.randint(-320, 320, (4, 9), generator=generator) / 64
    boxes, roadgraph = boxes_of(x, y=y), crossing()
    lights = lights_of((0, [STOP] * 9, (100, 5)), (1, [ARROW_STOP] * 9, (104, 10)))
    there = found_violations(Scene(boxes, roadgraph, lights), torch.arange(4))
    shift = torch.tensor([900.0, -300.0, 0.0])
    moved = Scene(
        boxes.replace(x=x + 900, y=y - 300),
        roadgraph.replace(xyz=roadgraph.xyz + shift),
        lights.replace(stop_xyz=lights.stop_xyz + shift),
    )
    assert there.any()
    assert found_violations(moved, torch.arange(4)).equal(there)
