import lzma
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catk_sim.constants import CURRENT_STEP, NUM_STEPS
from catk_sim.datasets.errors import DataError
from catk_sim.datasets.plain_pickle import load_plain
from catk_sim.datasets.scenarionet import parse_scenarios, read_scenarios
from catk_sim.datatypes import AgentType, LaneLinkType, MapFeatureType, Scenario, TrafficLightState
from catk_sim.metrics.road_edge_distance import signed_distance_to_road_edge
from catk_sim.metrics.road_edges import RoadEdges
from tests.catk_sim.datasets.foreign import nuscenes_log, womd_log, write_pickle
from tests.shared import shared_path

Edit = Callable[[Any], object]


def parse(log: Any) -> list[Scenario]:
    return parse_scenarios(pickle.dumps(log), source="some.pkl")


@pytest.fixture
def scenario() -> Scenario:
    [scenario] = parse(womd_log())
    return scenario


def points_of(scenario: Scenario, feature_id: int) -> list[list[float]]:
    roadgraph = scenario.roadgraph
    index = roadgraph.feature_id.tolist().index(feature_id)
    return (roadgraph.xyz + scenario.origin)[roadgraph.feature == index].tolist()


def test_tracks_are_read(scenario: Scenario) -> None:
    agents, log = scenario.agents, scenario.log
    assert scenario.scenario_id == ("log",)
    assert scenario.origin.tolist() == [10.0, 2.0, 1.0]
    assert agents.agent_id.tolist() == [9, 7]
    assert agents.type.tolist() == [AgentType.PEDESTRIAN, AgentType.VEHICLE]
    assert agents.is_sdc.tolist() == [False, True]
    assert agents.to_predict.tolist() == [True, False]
    assert agents.difficulty.tolist() == [2, 0]
    assert agents.of_interest.tolist() == [True, False]
    assert agents.size[0].tolist() == [0.5, pytest.approx(0.6), 1.75]
    assert log.valid.sum(-1).tolist() == [NUM_STEPS - 4, NUM_STEPS]
    assert (log.xy[1] + scenario.origin[:2])[:3].tolist() == [[0, 2], [1, 2], [2, 2]]
    assert log.velocity[1, 5].tolist() == [10.0, 0.0]
    assert scenario.timestamps[:3].tolist() == pytest.approx([0, 0.1, 0.2])


def test_the_map_is_read(scenario: Scenario) -> None:
    roadgraph = scenario.roadgraph
    assert roadgraph.feature_id.tolist() == [100, 101, 103, 104, 105, 106, 107]
    assert roadgraph.feature_type.tolist() == [
        MapFeatureType.LANE_SURFACE_STREET,
        MapFeatureType.LANE_UNDEFINED,
        MapFeatureType.ROAD_LINE_BROKEN_SINGLE_WHITE,
        MapFeatureType.ROAD_EDGE_BOUNDARY,
        MapFeatureType.CROSSWALK,
        MapFeatureType.CROSSWALK,
        MapFeatureType.STOP_SIGN,
    ]
    assert roadgraph.speed_limit.tolist() == [25.0, 35.0, 0, 0, 0, 0, 0]
    assert roadgraph.interpolating.tolist() == [False, True] + [False] * 5
    assert points_of(scenario, 100)[:2] == [[0, 2, 0], [5, 2, 0]]
    assert points_of(scenario, 104)[:2] == [[0, -5, 0], [5, -5, 0]]
    assert points_of(scenario, 105) == [[0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0]]
    assert points_of(scenario, 107) == [[50, 5, 1]]


def test_the_lane_graph_is_read(scenario: Scenario) -> None:
    links = scenario.roadgraph.links
    found = zip(links.feature.tolist(), links.type.tolist(), links.other_id.tolist(), strict=True)
    assert list(found) == [
        (0, LaneLinkType.EXIT_LANE, 101),
        (0, LaneLinkType.LEFT_NEIGHBOR, 101),
        (0, LaneLinkType.NEIGHBOR_BOUNDARY, 103),
        (0, LaneLinkType.LEFT_BOUNDARY, 103),
        (0, LaneLinkType.RIGHT_BOUNDARY, 103),
        (1, LaneLinkType.ENTRY_LANE, 100),
        (1, LaneLinkType.RIGHT_NEIGHBOR, 101),
        (1, LaneLinkType.NEIGHBOR_BOUNDARY, 103),
        (6, LaneLinkType.STOP_SIGN_LANE, 100),
    ]
    assert links.span.tolist() == [
        [0] * 4,
        [0, 1, 2, 3],
        *([[0, 9, 0, 0]] * 3),
        [0] * 4,
        [0, 1, 2, 3],
        [0, 9, 0, 0],
        [0] * 4,
    ]
    assert links.boundary_type.tolist() == [0, 0, 1, 1, 0, 0, 0, 1, 0]
    assert links.neighbor.tolist() == [0, 0, 1, 0, 0, 0, 0, 6, 0]


def check_lights(scenario: Scenario) -> None:
    lights = scenario.traffic_lights
    assert lights.lane_id.tolist() == [100]
    assert lights.valid[0].tolist() == [False] * 2 + [True] * (NUM_STEPS - 2)
    stop, go = TrafficLightState.STOP, TrafficLightState.GO
    assert lights.state[0, 2:].tolist() == [stop] * 18 + [go] * (NUM_STEPS - 20)
    assert (lights.stop_xyz[0, 2] + scenario.origin).tolist() == [50, 2, 0]


def test_lights_are_read(scenario: Scenario) -> None:
    check_lights(scenario)


def test_lights_of_the_older_form_are_read() -> None:
    log = womd_log()
    step = np.arange(NUM_STEPS)
    log["dynamic_map_states"]["100"] = {
        "type": "TRAFFIC_LIGHT",
        "state": {
            "lane": np.where(step < 2, 0, 100),
            "object_state": np.where(step < 2, 0, np.where(step < 20, 4, 6)),
            "stop_point": np.where(step[:, None] < 2, 0.0, np.array([50.0, 2.0, 0.0])),
        },
    }
    check_lights(parse(log)[0])


def test_what_a_log_of_womd_lacks_is_told(scenario: Scenario) -> None:
    assert scenario.lacks == (
        "map features of type GUARDRAIL (left out), "
        "stop points of lights at each step (one for all)",
    )


def test_what_another_log_lacks_is_told() -> None:
    [lacks] = parse(nuscenes_log())[0].lacks
    phrases = lacks.split(", ")
    assert phrases == sorted(set(phrases))
    assert {
        "agents to predict (chosen: at most 8 that get farthest)",
        "centre of the sdc (its rear axle is given)",
        "cones and barriers (left out)",
        "heights of the map (taken to be 0)",
        "lane speed limits",
        "length and width of the sdc (exchanged in the file)",
        "numbers of agents (counted)",
        "traffic lights",
    } <= set(phrases)
    assert "stop points" not in lacks


def test_a_long_log_is_cut_into_windows() -> None:
    first, second = parse(womd_log(198))
    assert (first.scenario_id, second.scenario_id) == (("log-0",), ("log-91",))
    assert second.origin.tolist() == [101.0, 2.0, 1.0]
    assert second.traffic_lights.state.unique().tolist() == [TrafficLightState.GO]


def test_a_log_of_another_rate_is_interpolated() -> None:
    log = womd_log(20)
    log["metadata"]["ts"] = 0.5 * np.arange(20)
    log["dynamic_map_states"]["101"] = light(log) | dict(lane=101)
    [scenario] = parse(log)
    # From step 2 of the log on, which is 1 s.
    assert scenario.traffic_lights.lane_id.tolist() == [100, 101]
    assert scenario.traffic_lights.valid.tolist() == [[False] * 10 + [True] * 81] * 2
    xy = scenario.log.xy[1] + scenario.origin[:2]
    assert xy[:6, 0].tolist() == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert "states every 0.1 s (interpolated)" in scenario.lacks[0]


def test_a_nan_of_any_kind_is_refused() -> None:
    log = womd_log()
    signalling = np.frombuffer(np.uint32(0x7FA00000).tobytes() * 91, np.float32)
    sdc(log).update(heading=signalling)
    with pytest.raises(DataError, match="wanted a finite number for heading of track 7"):
        parse(log)


def test_nuscenes_has_its_own_ways() -> None:
    first, _ = parse(nuscenes_log())
    agents = first.agents
    # The cone is left out; names are counted; the ego car is longer than broad.
    assert agents.type.tolist() == [AgentType.CYCLIST, AgentType.VEHICLE]
    assert agents.agent_id.tolist() == [0, 1]
    assert agents.is_sdc.tolist() == [False, True]
    assert agents.size.tolist() == [[1.8, 0.6, 1.7], [4.08, 1.73, 1.56]]
    assert agents.to_predict.tolist() == [True, False]
    roadgraph = first.roadgraph
    assert (roadgraph.xyz + first.origin)[:, 2].unique().tolist() == [0.0]
    assert roadgraph.feature_type.tolist() == [
        MapFeatureType.ROAD_EDGE_BOUNDARY,
        MapFeatureType.LANE_SURFACE_STREET,
        MapFeatureType.LANE_SURFACE_STREET,
        MapFeatureType.ROAD_LINE_BROKEN_SINGLE_WHITE,
    ]
    assert roadgraph.speed_limit.tolist() == [0.0] * 4
    links = roadgraph.links
    assert links.type.tolist() == [LaneLinkType.EXIT_LANE, LaneLinkType.ENTRY_LANE]
    assert links.other_id.tolist() == [2, 1]


def on_road(scenario: Scenario, xy: torch.Tensor) -> torch.Tensor:
    edges = RoadEdges.from_roadgraph(scenario.roadgraph)
    height = edges.segment.new_full((len(xy), 1), -float(scenario.origin[2]))
    xyz = torch.cat([xy, height], dim=-1)[:, None]
    return signed_distance_to_road_edge(xyz, torch.ones(len(xy), dtype=torch.bool), edges)[:, 0] < 0


def test_the_outline_of_nuscenes_has_the_road_on_its_inside() -> None:
    first, _ = parse(nuscenes_log())
    xy = torch.tensor([[0.0, 0.0], [0.0, 9.0], [0.0, 11.0], [-201.0, 0.0]], dtype=torch.float64)
    inside = on_road(first, xy - first.origin[:2])
    assert inside.tolist() == [True, True, False, False]


@pytest.mark.parametrize("name", ["a.pkl", "a.pkl.gz", "a.pkl.xz"])
def test_files_are_read_plain_and_compressed(tmp_path: Path, name: str) -> None:
    [scenario] = read_scenarios(write_pickle(tmp_path / name, womd_log()))
    assert scenario.scenario_id == ("log",)


def sdc(log: Any) -> Any:
    return log["tracks"]["7"]["state"]


def lane(log: Any) -> Any:
    return log["map_features"]["100"]


def light(log: Any) -> Any:
    return log["dynamic_map_states"]["100"]


BAD: list[tuple[Edit, str]] = [
    (lambda log: log.pop("tracks"), 'the file: wanted an object with the key "tracks"'),
    (lambda log: log.update(length="91"), "length: wanted an integer, got '91'"),
    (lambda log: log.update(length=2**62), "wanted an array of 4611"),
    (lambda log: log.update(id=5), "id: wanted a string, got 5"),
    (
        lambda log: log.update(id="\ud800"),
        r"wanted a scenario id of whole characters, got '\\ud800'",
    ),
    (lambda log: log["tracks"].clear(), "tracks: wanted at least one track"),
    (lambda log: log.update(tracks=[]), "wanted an object, got"),
    (lambda log: log["tracks"].update({5: {}}), "tracks: wanted an object whose keys are strings"),
    (lambda log: log["tracks"]["7"].update(type="BOAT"), "type: wanted one of UNSET, VEHICLE, "),
    (lambda log: sdc(log).update(heading=[0.0] * 90), "heading: wanted an array of 91 numbers"),
    (lambda log: sdc(log).update(heading="east"), "heading: wanted an array of 91 numbers"),
    (lambda log: sdc(log).update(heading=[None] * 91), "heading: wanted an array of 91 numbers"),
    (
        lambda log: sdc(log).update(position=np.zeros((91, 2))),
        r"position: wanted 91 rows of 3 numbers, got an array of float64, \(91, 2\)",
    ),
    (
        lambda log: sdc(log).update(valid=np.full(91, 0.5)),
        "valid: wanted an array of 91 booleans",
    ),
    (
        lambda log: sdc(log).update(velocity=[[1.0, 2.0]] * 90 + [[1.0]]),
        "velocity: wanted 91 rows of 2 numbers",
    ),
    (
        lambda log: sdc(log).update(length=np.full(91, np.nan)),
        "finite number for length of track 7",
    ),
    (lambda log: log["metadata"].update(sdc_id="8"), "sdc_id: wanted the name of a track, got '8'"),
    (lambda log: log["metadata"].update(ts=np.zeros(91)), "wanted timestamps that rise"),
    (lambda log: log["metadata"].update(objects_of_interest=["5"]), "wanted the name of a track"),
    (
        lambda log: log["metadata"]["tracks_to_predict"]["9"].update(track_id="5"),
        "track_id: wanted the name of a track, got '5'",
    ),
    (lambda log: lane(log).update(polyline=np.zeros((3, 4))), "wanted rows of 2 or 3 numbers"),
    (lambda log: lane(log).update(polyline=[(0, 0), (1, 1, 1)]), "wanted rows of 2 or 3 numbers"),
    (lambda log: lane(log).pop("polyline"), 'wanted an object with the key "polygon"'),
    (lambda log: lane(log).update(exit_lanes=["x"]), r"exit_lanes\[0\]: wanted the name of a map"),
    (lambda log: lane(log).update(interpolating=1), "interpolating: wanted true or false, got 1"),
    (lambda log: lane(log).update(speed_limit_mph="fast"), "speed_limit_mph: wanted a number"),
    (
        lambda log: lane(log)["left_boundaries"][0].update(lane_start_index="x"),
        "lane_start_index: wanted an integer, got 'x'",
    ),
    (
        lambda log: lane(log)["left_boundaries"][0].update(boundary_type="CROSSWALK"),
        "boundary_type: wanted the type of a road line",
    ),
    (
        lambda log: light(log)["state"].update(object_state=["LANE_STATE_GO"]),
        "object_state: wanted 91 states, got 1",
    ),
    (
        lambda log: light(log)["state"].update(object_state=["GREEN"] * 91),
        r"object_state\[0\]: wanted LANE_STATE_ and one of UNKNOWN, ",
    ),
    (lambda log: light(log).update(stop_point=[1.0]), "stop_point: wanted an array of 3 numbers"),
    (lambda log: light(log).update(lane="north"), "lane: wanted the name of a map feature"),
]


@pytest.mark.parametrize(("edit", "message"), BAD)
def test_a_bad_log_is_an_error_that_names_the_key(edit: Edit, message: str) -> None:
    log = womd_log()
    edit(log)
    with pytest.raises(DataError, match=f"^some.pkl: .*{message}") as caught:
        parse(log)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_what_is_no_log_is_an_error() -> None:
    for content in (None, [], {}, np.zeros(3), {"id": "a"}):
        with pytest.raises(DataError):
            parse(content)


def real_logs(folder: str, *names: str) -> list[Path]:
    paths = sorted(shared_path(f"data/{folder}").glob("*.pkl.xz"))
    return [path for path in paths if any(name in path.name for name in names)]


@pytest.mark.slow
def test_real_logs_of_womd_are_read() -> None:
    counts = []
    # One of 9 s, and one whose lights have the older form.
    names = ("8a346109094cd5aa", "6f85f27e0243fc10")
    for path in real_logs("womd_scenarionet_pkl", *names):
        windows = read_scenarios(path)
        log = load_plain(lzma.decompress(path.read_bytes()))
        counts.append(len(windows))
        features = log["map_features"]
        for number, scenario in enumerate(windows):
            start = number * NUM_STEPS
            steps = slice(start, start + NUM_STEPS)
            roadgraph, traffic_lights = scenario.roadgraph, scenario.traffic_lights
            assert len(roadgraph.feature_id) == len(features)
            assert torch.isin(traffic_lights.lane_id, roadgraph.feature_id).all()
            assert scenario.log.valid[scenario.agents.is_sdc, CURRENT_STEP].all()
            xy, valid = scenario.log.xy + scenario.origin[:2], scenario.log.valid
            for index, agent_id in enumerate(scenario.agents.agent_id.tolist()):
                state = log["tracks"][str(agent_id)]["state"]
                assert valid[index].tolist() == state["valid"][steps].tolist()
                logged = torch.from_numpy(state["position"][steps, :2].astype(float))
                assert torch.equal(xy[index][valid[index]], logged[valid[index]])
            observed = sum(
                sum(state is not None for state in light["state"]["object_state"][steps])
                if "lane" in light
                else int((light["state"]["lane"][steps] > 0).sum())
                for light in log["dynamic_map_states"].values()
            )
            assert int(traffic_lights.valid.sum()) == observed
    assert sorted(counts) == [1, 2]


@pytest.mark.slow
def test_real_logs_of_nuscenes_are_read() -> None:
    for path in real_logs("nuscenes_scenarionet_pkl", "0757", "1100"):
        windows = read_scenarios(path)
        assert len(windows) == 2
        for scenario in windows:
            log, agents, roadgraph = scenario.log, scenario.agents, scenario.roadgraph
            is_lane = MapFeatureType.is_lane(roadgraph.point_type)
            assert on_road(scenario, roadgraph.xyz[is_lane][:, :2]).double().mean() > 0.98
            assert on_road(scenario, log.xy[agents.is_sdc][0]).all()
            assert (agents.size[agents.type == AgentType.VEHICLE, 0] > 2).all()
            # Nearly every lane goes on as another.
            exits = roadgraph.links.type == LaneLinkType.EXIT_LANE
            lanes = MapFeatureType.is_lane(roadgraph.feature_type).sum()
            assert len(roadgraph.links.feature[exits].unique()) > 0.85 * lanes
