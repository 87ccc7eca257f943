import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from catk_sim.constants import CURRENT_STEP, NUM_STEPS
from catk_sim.datasets import centering
from catk_sim.datasets.errors import DataError
from catk_sim.datasets.gpudrive import parse_scenario, read_scenario
from catk_sim.datasets.womd import parse_scenario as parse_proto
from catk_sim.datasets.womd import scenario_to_proto
from catk_sim.datatypes import LaneLinkType, MapFeatureType, Scenario, TensorTree
from tests.catk_sim.datasets.protos import scenario_pb2
from tests.shared import shared_path

Edit = Callable[[Any], object]


def junction() -> dict[str, Any]:
    """A car (the sdc) that drives east, a pedestrian that leaves, two lanes and a light."""
    count = CURRENT_STEP + 1
    car = dict(
        position=[dict(x=1000.25 + step, y=-500.0, z=3.0) for step in range(count)],
        heading=[0.5] * count,
        velocity=[dict(x=10.0, y=0.0)] * count,
        valid=[True] * count,
        **dict(id=7, type="vehicle", length=5.0, width=2.0, height=1.5),
    )
    absent = dict(x=-10000.0, y=-10000.0, z=-10000.0)
    pedestrian = dict(
        position=[dict(x=1010.0, y=-510.0, z=3.5)] * 4 + [absent] * (count - 4),
        heading=[1.5] * 4 + [-10000.0] * (count - 4),
        velocity=[dict(x=0.0, y=1.0)] * 4 + [dict(x=-10000.0, y=-10000.0)] * (count - 4),
        valid=[True] * 4 + [False] * (count - 4),
        **dict(id=9, type="pedestrian", length=1.0, width=0.75, height=1.75),
    )
    return dict(
        name="junction.json",
        scenario_id="junction",
        objects=[pedestrian, car],
        roads=[
            _road(1, "lane", 2, [(990.0, -500.0), (1000.0, -500.0)]),
            _road(2, "lane", 2, [(1000.05, -500.0), (1010.0, -500.0)]),
            _road(3, "road_edge", 15, [(1000.0, -500.0), (990.0, -505.0)]),
            _road(4, "stop_sign", 17, [(999.0, -503.0)]),
        ],
        tl_states={
            "2": _light(["go", "arrow_caution"], first_step=4),
            "1": _light(["stop"] * count, first_step=0),
            "999": _light(["unknown"] * count, first_step=0),
        },
        metadata=dict(
            sdc_track_index=1,
            objects_of_interest=[9],
            tracks_to_predict=[dict(track_index=0, difficulty=2)],
        ),
    )


def _road(feature_id: int, kind: str, code: int, points: list[tuple[float, float]]) -> dict:
    geometry = [dict(x=x, y=y, z=2.0) for x, y in points]
    return dict(id=feature_id, type=kind, map_element_id=code, geometry=geometry)


def _light(states: list[str], first_step: int) -> dict[str, Any]:
    count = len(states)
    return dict(
        state=states,
        time_index=list(range(first_step, first_step + count)),
        **dict(x=[1001.0] * count, y=[-500.5] * count, z=[2.5] * count),
    )


def parse(content: Any) -> Scenario:
    return parse_scenario(json.dumps(content).encode(), source="some.json")


@pytest.fixture
def scenario() -> Scenario:
    return parse(junction())


def test_the_frame_stands_on_the_sdc_at_the_current_step(scenario: Scenario) -> None:
    assert scenario.origin.tolist() == [1010.0, -500.0, 3.0]
    assert scenario.log.xy[1, CURRENT_STEP].tolist() == [0.25, 0.0]


def test_all_that_an_object_says_is_read(scenario: Scenario) -> None:
    agents, log = scenario.agents, scenario.log
    assert scenario.scenario_id == ("junction",)
    assert agents.agent_id.tolist() == [9, 7]
    assert agents.type.tolist() == [2, 1]
    assert agents.is_sdc.tolist() == [False, True]
    assert agents.to_predict.tolist() == [True, False]
    assert agents.difficulty.tolist() == [2, 0]
    assert agents.of_interest.tolist() == [True, False]
    assert log.valid.sum(dim=-1).tolist() == [4, 11]
    assert log.heading[:, 0].tolist() == [1.5, 0.5]
    assert log.velocity[:, 0].tolist() == [[0.0, 1.0], [10.0, 0.0]]
    assert log.z[:, 0].tolist() == [0.5, 0.0]
    assert scenario.timestamps.tolist() == pytest.approx([0.1 * step for step in range(11)])


def test_the_one_size_of_an_object_holds_while_it_is_there(scenario: Scenario) -> None:
    assert scenario.agents.size.tolist() == [[1.0, 0.75, 1.75], [5.0, 2.0, 1.5]]
    assert scenario.log_size[0, 3].tolist() == [1.0, 0.75, 1.75]


def test_the_placeholders_of_absence_are_not_kept(scenario: Scenario) -> None:
    """They become the zeros that WOMD's own files have."""
    assert not (scenario.log.xy + scenario.origin[:2])[0, 4:].any()
    assert not scenario.log.velocity[0, 4:].any()


def test_roads_are_the_map(scenario: Scenario) -> None:
    roadgraph = scenario.roadgraph
    assert roadgraph.feature_id.tolist() == [1, 2, 3, 4]
    assert roadgraph.feature_type.tolist() == [
        MapFeatureType.LANE_SURFACE_STREET,
        MapFeatureType.LANE_SURFACE_STREET,
        MapFeatureType.ROAD_EDGE_BOUNDARY,
        MapFeatureType.STOP_SIGN,
    ]
    assert roadgraph.feature.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert (roadgraph.xyz[5] + scenario.origin).tolist() == [990.0, -505.0, 2.0]


def test_lanes_that_meet_are_linked(scenario: Scenario) -> None:
    links = scenario.roadgraph.links
    assert links.feature.tolist() == [0, 1]
    assert links.type.tolist() == [LaneLinkType.EXIT_LANE, LaneLinkType.ENTRY_LANE]
    assert links.other_id.tolist() == [2, 1]


def test_lights_come_in_the_order_of_time(scenario: Scenario) -> None:
    lights = scenario.traffic_lights
    assert lights.lane_id.tolist() == [1, 999, 2]
    assert lights.state[2].tolist() == [0] * 4 + [6, 2] + [0] * 5
    assert lights.valid.sum(dim=-1).tolist() == [11, 11, 2]
    assert (lights.stop_xyz[0, 0] + scenario.origin).tolist() == [1001.0, -500.5, 2.5]


def test_what_the_format_does_not_tell_is_recorded(scenario: Scenario) -> None:
    [lacks] = scenario.lacks
    phrases = lacks.split(", ")
    assert phrases == sorted(phrases)
    assert "lane speed limits" in phrases


def test_a_scene_without_roads_and_lights_is_read() -> None:
    scenario = parse(junction() | dict(roads=[], tl_states={}))
    assert scenario.roadgraph.xyz.shape == (0, 3)
    assert scenario.traffic_lights.valid.shape == (0, 11)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress])
def test_files_are_read_plain_and_compressed(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "file").write_bytes(compress(json.dumps(junction()).encode()))
    assert read_scenario(tmp_path / "file").scenario_id == ("junction",)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_a_truncated_compressed_file_is_an_error(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "file").write_bytes(compress(json.dumps(junction()).encode())[:-20])
    with pytest.raises(DataError, match="file: the compression is damaged"):
        read_scenario(tmp_path / "file")


def test_a_missing_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        read_scenario(tmp_path / "absent")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_json_is_an_error(text: bytes) -> None:
    with pytest.raises(DataError, match=r"^some\.json: not JSON"):
        parse_scenario(text, source="some.json")


def car(content: Any) -> Any:
    return content["objects"][1]


NAN = float("nan")
BAD: list[tuple[Edit, str]] = [
    (lambda c: c.pop("roads"), 'the file: wanted an object with the key "roads"'),
    (lambda c: car(c).pop("heading"), r'objects\[1\]: wanted an object with the key "heading"'),
    (lambda c: c["objects"].clear(), "objects: wanted at least one object"),
    (lambda c: c.update(objects={}), r"objects: wanted an array, got \{\}"),
    (lambda c: c.update(tl_states=[]), r"tl_states: wanted an object, got \[\]"),
    (lambda c: c.update(scenario_id=5), "scenario_id: wanted a string, got 5"),
    (lambda c: car(c)["heading"].pop(), r"objects\[1\].heading: wanted 11 values, got 10"),
    (lambda c: car(c)["position"].pop(), r"objects\[1\].position: wanted 11 values, got 10"),
    (lambda c: car(c)["velocity"].pop(), r"objects\[1\].velocity: wanted 11 values, got 10"),
    (lambda c: car(c)["valid"].pop(), r"objects\[1\].valid: wanted 11 values, got 10"),
    (lambda c: car(c).update(valid=[1]), r"objects\[1\].valid: wanted an array of true and false"),
    (
        lambda c: car(c)["position"].append(dict(x=1)),
        r"objects\[1\].position: wanted an array of objects with the numbers x, y, z",
    ),
    (
        lambda c: car(c).update(velocity=5),
        r"objects\[1\].velocity: wanted an array of objects with the numbers x, y, got 5",
    ),
    (lambda c: car(c).update(width="2"), r"objects\[1\].width: wanted a number, got '2'"),
    (lambda c: car(c).update(height=10**400), r"objects\[1\].height: wanted a number, got 1000"),
    (lambda c: car(c).update(heading=["0"]), r"objects\[1\].heading: wanted an array of numbers"),
    (lambda c: car(c).update(heading=0.5), r"objects\[1\].heading: wanted an array of numbers"),
    (lambda c: car(c).update(id="7"), r"objects\[1\].id: wanted an integer, got '7'"),
    (lambda c: car(c).update(id=2**63), r"objects\[1\].id: wanted an integer, got 9223"),
    (lambda c: car(c).update(id=True), r"objects\[1\].id: wanted an integer, got True"),
    (lambda c: car(c).update(type="boat"), r"objects\[1\].type: wanted one of unset, vehicle, "),
    (lambda c: car(c).update(length=NAN), "wanted a finite number for length of track 7"),
    (
        lambda c: c["roads"][2]["geometry"][1].update(z=NAN),
        "wanted a finite number for z of a point of map feature 3, got nan",
    ),
    (
        lambda c: c["roads"][2].update(map_element_id=4),
        r"roads\[2\].map_element_id: wanted the code of a map feature, got 4",
    ),
    (
        lambda c: c["tl_states"]["2"]["state"].pop(),
        "tl_states.2.state: wanted 2 values, got 1",
    ),
    (lambda c: c["tl_states"]["2"]["y"].pop(), "tl_states.2.y: wanted 2 values, got 1"),
    (
        lambda c: c["tl_states"]["2"].update(time_index=[10, 11]),
        "wanted lights at 11 steps, got one at step 11",
    ),
    (
        lambda c: c["tl_states"]["2"].update(time_index=[-1, 0]),
        "wanted lights at 11 steps, got one at step -1",
    ),
    (
        lambda c: c["tl_states"]["2"].update(state=["go", "green"]),
        r"tl_states.2.state\[1\]: wanted one of unknown, .*, got 'green'",
    ),
    (
        lambda c: c["tl_states"].update(north=c["tl_states"]["2"]),
        "tl_states.north: wanted the id of a lane as its key, got 'north'",
    ),
    (
        lambda c: c["metadata"].update(sdc_track_index=2),
        r"wanted sdc_track_index in \[0, 2\), got 2",
    ),
    (lambda c: c["metadata"].update(objects_of_interest=[5]), "objects_of_interest names track 5"),
]


@pytest.mark.parametrize(("edit", "message"), BAD)
def test_a_bad_file_is_an_error_that_names_the_key(edit: Edit, message: str) -> None:
    content = junction()
    edit(content)
    with pytest.raises(DataError, match=f"^some.json: .*{message}") as caught:
        parse(content)
    assert "\n" not in str(caught.value)


def test_half_a_character_is_no_id() -> None:
    with pytest.raises(DataError, match=r"wanted a scenario id of whole characters, got '\\ud800'"):
        parse(junction() | dict(scenario_id="\ud800"))


def test_lights_of_many_lanes_at_many_steps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few of them need be told, and each has a place at every step."""
    monkeypatch.setattr(centering, "MAX_LIGHT_STATES", 33)
    assert parse(junction()).traffic_lights.valid.numel() == 33
    content = junction()
    content["tl_states"]["3"] = _light(["stop"], first_step=0)
    with pytest.raises(
        DataError, match=r"^some\.json: wanted at most 33 states of lights, got 4 lanes at 11 steps"
    ):
        parse(content)


def test_a_history_that_is_too_short_is_an_error() -> None:
    content = junction()
    for item in content["objects"]:
        for key in ("position", "heading", "velocity", "valid"):
            item[key] = item[key][:10]
    with pytest.raises(DataError, match="wanted at least 11 steps, got 10"):
        parse(content | dict(tl_states={}))


def assert_equal(one: TensorTree, other: TensorTree) -> None:
    left, right = list_tensors(one), list_tensors(other)
    assert len(left) == len(right)
    for index, (a, b) in enumerate(zip(left, right, strict=True)):
        assert torch.equal(a, b), index


def list_tensors(tree: TensorTree) -> list[torch.Tensor]:
    tensors: list[torch.Tensor] = []
    tree.map(lambda tensor: tensors.append(tensor) or tensor)
    return tensors


def to_proto_precision(scenario: Scenario) -> Scenario:
    """Rounds headings as the proto does. The other float32 fields come from a proto already."""
    heading = scenario.log.heading.float().double()
    return scenario.replace(log=scenario.log.replace(heading=heading))


def test_a_scene_becomes_a_proto_that_loads_equal(scenario: Scenario) -> None:
    scenario_pb2()
    again = parse_proto(scenario_to_proto(scenario).SerializeToString())
    # The proto has its own timestamps, and cannot say what it lacks.
    assert again.scenario_id == scenario.scenario_id
    assert_equal(again, scenario)


@pytest.mark.slow
def test_all_real_scenes_become_protos_that_load_equal() -> None:
    scenario_pb2()
    paths = sorted(shared_path("data/womd_gpudrive_json").glob("*.json.xz"))
    assert len(paths) == 122
    for path in paths:
        scenario = to_proto_precision(read_scenario(path))
        assert scenario.log.num_steps == NUM_STEPS
        assert scenario.scenario_id == (path.name.removesuffix(".json.xz"),)
        again = parse_proto(scenario_to_proto(scenario).SerializeToString())
        assert again.scenario_id == scenario.scenario_id
        assert_equal(again, scenario)


def test_the_real_lights_are_read() -> None:
    path = shared_path("data/womd_gpudrive_json/2af8a17d6cee3f8.json.xz")
    lights = json.loads(lzma.decompress(path.read_bytes()))["tl_states"]
    in_time = sorted(lights, key=lambda lane_id: lights[lane_id]["time_index"][0])
    scenario = read_scenario(path)
    found = scenario.traffic_lights
    assert found.lane_id.tolist() == [int(lane_id) for lane_id in in_time]
    assert found.valid.sum(dim=-1).tolist() == [len(lights[key]["state"]) for key in in_time]
    lanes = scenario.roadgraph.feature_id[scenario.roadgraph.feature_type <= 3]
    assert torch.isin(found.lane_id, lanes).all()
