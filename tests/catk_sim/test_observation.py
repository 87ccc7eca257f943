import math

import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.constants import CURRENT_STEP
from catk_sim.datasets.batching import collate
from catk_sim.datatypes import Scenario, SimState
from catk_sim.dynamics import DeltaLocal
from catk_sim.geometry.se2 import rotate
from catk_sim.observation import (
    LIGHT_CLASSES,
    LIMIT,
    MAP_CLASSES,
    POINT_SPACING,
    ObservationSizes,
    fit,
    observable_points,
    observation_space,
    observe,
)
from catk_sim.simulator import Simulator
from tests.catk_sim.envs import variations
from tests.scenes import straight_road

SIZES = ObservationSizes(max_agents=4, max_map_points=50, max_lights=2)

VALUES = torch.arange(12.0).reshape(2, 3, 2)


def start(scenario: Scenario) -> SimState:
    batch = collate([scenario])
    return Simulator(DeltaLocal()).reset(batch, batch.agents.is_sdc)


def look(state: SimState, *, from_sdc: bool, sizes: ObservationSizes = SIZES) -> dict[str, Tensor]:
    points = observable_points(state.scenario.roadgraph, 4 * sizes.max_map_points)
    seen = observe(state, points, sizes, from_sdc=from_sdc)
    return {name: value[0] for name, value in seen.items()}


def turned(scenario: Scenario, angle: float, shift: Tensor) -> Scenario:
    """The scene moved and turned as a whole."""
    turn = torch.tensor(angle)

    def place(xyz: Tensor) -> Tensor:
        return torch.cat([rotate(xyz[..., :2], turn) + shift, xyz[..., 2:]], dim=-1)

    log, lights = scenario.log, scenario.traffic_lights
    return scenario.replace(
        log=log.replace(
            xy=place(log.xy), heading=log.heading + angle, velocity=rotate(log.velocity, turn)
        ),
        roadgraph=scenario.roadgraph.replace(xyz=place(scenario.roadgraph.xyz)),
        traffic_lights=lights.replace(stop_xyz=place(lights.stop_xyz)),
    )


def test_the_scene_is_seen_as_it_stands() -> None:
    seen = look(start(straight_road()), from_sdc=False)
    # A drives east at 10 m/s, and is at (-30, -2) at the current step.
    torch.testing.assert_close(
        seen["agents"][0, CURRENT_STEP], torch.tensor([-30.0, -2, 1, 0, 10, 0])
    )
    torch.testing.assert_close(seen["agents"][0, 0], torch.tensor([-40.0, -2, 1, 0, 10, 0]))
    # Length, width, height; vehicle, pedestrian, cyclist, other; sdc, controlled.
    torch.testing.assert_close(
        seen["agent_attributes"],
        torch.tensor(
            [
                [4.8, 2.0, 1.5, 1, 0, 0, 0, 1, 1],
                [1.0, 1.0, 1.8, 0, 1, 0, 0, 0, 0],
                [4.8, 2.0, 1.5, 1, 0, 0, 0, 0, 0],
                [0.0, 0.0, 0.0, 0, 0, 0, 0, 0, 0],
            ]
        ),
    )
    # C enters at step 6.
    assert seen["agents_valid"][2].tolist() == [False] * 6 + [True] * 5
    assert not seen["agents"][2, :6].any()
    assert not seen["agents_valid"][3].any()


def test_the_sdc_sees_from_where_it_is() -> None:
    seen = look(start(turned(straight_road(), 1.0, torch.tensor([300.0, -50.0]))), from_sdc=True)
    torch.testing.assert_close(
        seen["agents"][0, CURRENT_STEP], torch.tensor([0.0, 0, 1, 0, 10, 0]), atol=1e-4, rtol=0
    )
    # B stands at (10, 6), and A at (-30, -2): 40 m ahead, 8 m to the left.
    torch.testing.assert_close(
        seen["agents"][1, CURRENT_STEP], torch.tensor([40.0, 8, 1, 0, 0, 0]), atol=1e-4, rtol=0
    )
    # The light is at x = 60.
    torch.testing.assert_close(
        seen["lights"][0], torch.tensor([90.0, 0, 0, 0, 0, 1]), atol=1e-4, rtol=0
    )


@given(angle=st.floats(-7, 7), x=st.floats(-500, 500), y=st.floats(-500, 500))
def test_what_the_sdc_sees_does_not_depend_on_where_the_scene_lies(
    angle: float, x: float, y: float
) -> None:
    everything = ObservationSizes(max_agents=3, max_map_points=404, max_lights=1)
    scene = straight_road()
    expected = look(start(scene), from_sdc=True, sizes=everything)
    elsewhere = turned(scene, angle, torch.tensor([x, y]))
    seen = look(start(elsewhere), from_sdc=True, sizes=everything)
    for name in ("agents", "agent_attributes", "lights"):
        torch.testing.assert_close(seen[name], expected[name], atol=2e-3, rtol=0)
    # Points at equal distances may change places.
    torch.testing.assert_close(seen["map"].sum(0), expected["map"].sum(0), atol=2.0, rtol=1e-3)


def test_the_map_is_told_by_its_nearest_points() -> None:
    seen = look(start(straight_road()), from_sdc=True)
    assert seen["map_valid"].all()
    distance = seen["map"][:, :2].norm(dim=-1)
    assert (distance.diff() >= -1e-4).all()
    # Lanes at y = -2 (its own) and 4 m to the left, edges 2 m to the right and 6 m to the left.
    beside = seen["map"][:, 1].round().unique().tolist()
    assert beside == [-2, 0, 4, 6]
    # 50 points of four lines, 2 m apart: some 12 m either way.
    assert 10 < distance.max() < 20


def test_points_know_their_direction_and_class() -> None:
    seen = look(start(straight_road()), from_sdc=True)
    names = [name for name, _ in MAP_CLASSES]
    lane, edge = 4 + names.index("lane"), 4 + names.index("road edge")
    for row in seen["map"]:
        eastward = row[1] < 1  # Its own lane and edge run along it, the others against it.
        torch.testing.assert_close(row[2:4], torch.tensor([1.0 if eastward else -1.0, 0.0]))
        is_lane = abs(float(row[1])) < 1 or abs(float(row[1]) - 4) < 1
        assert row[lane] == float(is_lane)
        assert row[edge] == float(not is_lane)
        assert row[4:].sum() == 1


def test_points_along_a_polyline_are_thinned() -> None:
    road = straight_road()
    xyz = torch.zeros(401, 3)
    xyz[:, 0] = torch.linspace(0, 100, 401)
    roadgraph = road.roadgraph.replace(
        xyz=xyz,
        feature=torch.zeros(401, dtype=torch.int64),
        point_valid=torch.ones(401, dtype=torch.bool),
    )
    points = observable_points(roadgraph, 401)
    kept = points.xy[points.valid][:, 0].sort().values
    assert kept[0] == 0
    assert kept[-1] == 100
    assert (kept.diff() <= POINT_SPACING + 0.3).all()
    assert len(kept) <= 100 / POINT_SPACING + 2


def test_points_that_there_is_no_room_for_are_counted() -> None:
    # Four polylines of 101 points, 2 m apart.
    roadgraph = straight_road().roadgraph
    assert int(observable_points(roadgraph, 100).num_left_out) == 304
    assert int(observable_points(roadgraph, 500).num_left_out) == 0
    assert observable_points(roadgraph, 500).xy.shape == (500, 2)


def test_the_state_of_a_light_is_the_present_one() -> None:
    state = start(straight_road())
    names = [name for name, _ in LIGHT_CLASSES]
    for step, name in ((39, "go"), (40, "stop")):
        seen = look(state.replace(step=torch.tensor([step])), from_sdc=False)
        assert seen["lights"][0].tolist()[:2] == [60.0, -2.0]
        assert seen["lights"][0, 2 + names.index(name)] == 1
        assert seen["lights_valid"].tolist() == [True, False]
    beyond = look(state.replace(step=torch.tensor([91])), from_sdc=False)
    assert not beyond["lights_valid"].any()


def test_the_nearest_lights_are_seen() -> None:
    road = straight_road()
    lights = road.traffic_lights.map(lambda tensor: tensor.repeat_interleave(3, dim=0))
    stop_xyz = lights.stop_xyz.clone()
    stop_xyz[:, :, 0] = torch.tensor([500.0, -25.0, 60.0])[:, None]
    road = road.replace(traffic_lights=lights.replace(stop_xyz=stop_xyz))
    seen = look(start(road), from_sdc=True)
    assert seen["lights"][:, 0].tolist() == [5.0, 90.0]


@pytest.mark.parametrize("from_sdc", [True, False])
@pytest.mark.parametrize(
    "scenario",
    [
        variations.crowd(9),
        variations.short(variations.crowd(3)),
        variations.without_map(variations.crowd(2)),
        variations.moved(straight_road(), 1e9),
        variations.with_present(straight_road(), []),
    ],
    ids=lambda scenario: scenario.scenario_id[0],
)
def test_whatever_is_seen_is_in_the_space(scenario: Scenario, from_sdc: bool) -> None:
    seen = look(start(scenario), from_sdc=from_sdc)
    space = observation_space(SIZES)
    assert {name: value.numpy() for name, value in seen.items()} in space
    assert all(value.abs().max() <= LIMIT for value in seen.values() if value.is_floating_point())


def test_the_space_is_a_dictionary_of_boxes() -> None:
    space = observation_space(SIZES)
    assert isinstance(space, spaces.Dict)
    assert space["agents"].shape == (4, 11, 6)
    assert space["map"].shape == (50, 12)
    assert all(isinstance(part, spaces.Box) for part in space.values())


def test_headings_are_seen_as_directions() -> None:
    road = straight_road()
    seen = look(start(turned(road, math.pi / 2, torch.zeros(2))), from_sdc=False)
    torch.testing.assert_close(
        seen["agents"][0, CURRENT_STEP],
        torch.tensor([2.0, -30.0, 0.0, 1.0, 0.0, 10.0]),
        atol=1e-4,
        rtol=0,
    )


def test_as_many_agents_as_are_wanted_are_left_as_they_are() -> None:
    assert fit(VALUES, 1, 3) is VALUES


def test_agents_beyond_the_number_are_cut_off() -> None:
    assert torch.equal(fit(VALUES, 1, 2), VALUES[:, :2])


def test_agents_that_are_missing_are_zero() -> None:
    padded = fit(VALUES, 1, 5)
    assert torch.equal(padded[:, :3], VALUES)
    assert padded.shape == (2, 5, 2)
    assert not padded[:, 3:].any()
    assert fit(VALUES[..., 0] > 3, 1, 4)[:, 3].tolist() == [False, False]


def test_what_is_done_to_an_observation_does_not_change_the_state() -> None:
    state = start(straight_road())
    sizes = ObservationSizes(max_agents=state.controlled.shape[1], max_map_points=50, max_lights=2)
    before = state.history.valid.clone()
    look(state, from_sdc=False, sizes=sizes)["agents_valid"].logical_not_()
    assert torch.equal(state.history.valid, before)
