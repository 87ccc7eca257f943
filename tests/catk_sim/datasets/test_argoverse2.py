import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catk_sim.constants import CURRENT_STEP, NUM_STEPS
from catk_sim.datasets.argoverse2 import DEFAULT_SIZES, read_scenario
from catk_sim.datasets.argoverse2_map import road_edges
from catk_sim.datasets.errors import DataError
from catk_sim.datatypes import AgentType, LaneLinkType, MapFeatureType, Scenario
from catk_sim.metrics.road_edge_distance import signed_distance_to_road_edge
from catk_sim.metrics.road_edges import RoadEdges
from tests.catk_sim.datasets.foreign import argoverse_map, argoverse_rows, write_argoverse
from tests.shared import shared_path

pyarrow = pytest.importorskip("pyarrow")

Edit = Callable[[Any], object]


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return read_scenario(write_argoverse(tmp_path))


def polylines(scenario: Scenario, kind: MapFeatureType) -> list[list[list[float]]]:
    roadgraph = scenario.roadgraph
    xy = (roadgraph.xyz + scenario.origin)[:, :2]
    indices = (roadgraph.feature_type == kind).nonzero()[:, 0]
    return [xy[roadgraph.feature == index].tolist() for index in indices]


def test_the_last_91_steps_are_read(scenario: Scenario) -> None:
    assert scenario.scenario_id == ("some-scenario",)
    assert scenario.log.num_steps == NUM_STEPS
    # Step 29 of the file is the current one.
    assert scenario.origin.tolist() == [100.0, 29.0, 0.0]
    sdc = scenario.agents.is_sdc
    assert scenario.log.xy[sdc, CURRENT_STEP].tolist() == [[0.0, 0.0]]
    assert scenario.log.xy[sdc, -1].tolist() == [[0.0, 80.0]]
    assert scenario.timestamps[-1] == pytest.approx(9.0)


def test_tracks_are_read(scenario: Scenario) -> None:
    agents = scenario.agents
    assert agents.agent_id.tolist() == [12, 13, 14]
    assert agents.type.tolist() == [AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.VEHICLE]
    assert agents.is_sdc.tolist() == [False, False, True]
    assert agents.to_predict.tolist() == [True, False, False]
    assert scenario.log.valid.sum(-1).tolist() == [NUM_STEPS, 12, NUM_STEPS]
    assert scenario.log.heading[2, 0] == pytest.approx(np.pi / 2)
    assert scenario.log.velocity[2, 0].tolist() == [0.0, 10.0]


def test_sizes_come_from_a_table_and_heights_are_0(scenario: Scenario) -> None:
    kinds = ("bus", "pedestrian", "vehicle")
    assert scenario.agents.size.tolist() == [list(DEFAULT_SIZES[kind]) for kind in kinds]
    assert not (scenario.log.z + scenario.origin[2])[scenario.log.valid].any()
    assert not (scenario.roadgraph.xyz + scenario.origin)[:, 2].any()


def test_what_the_format_does_not_tell_is_recorded(scenario: Scenario) -> None:
    phrases = scenario.lacks[0].split(", ")
    assert phrases == sorted(set(phrases))
    assert {"traffic lights", "sizes (taken from a table by type)"} <= set(phrases)


def test_the_map_is_read(scenario: Scenario) -> None:
    roadgraph = scenario.roadgraph
    kinds = [MapFeatureType(code) for code in roadgraph.feature_type.tolist()]
    assert kinds == [
        *[MapFeatureType.LANE_SURFACE_STREET] * 3,
        MapFeatureType.LANE_BIKE_LANE,
        MapFeatureType.CROSSWALK,
        MapFeatureType.ROAD_LINE_SOLID_DOUBLE_YELLOW,
        MapFeatureType.ROAD_LINE_BROKEN_SINGLE_WHITE,
        *[MapFeatureType.ROAD_EDGE_BOUNDARY] * 2,
    ]
    assert roadgraph.feature_id.tolist() == [1, 2, 3, 4, 9, 10, 11, 12, 13]
    assert polylines(scenario, MapFeatureType.LANE_BIKE_LANE) == [[[104, 0], [104, 50]]]
    crossing = [[85, 30], [110, 30], [110, 33], [85, 33]]
    assert polylines(scenario, MapFeatureType.CROSSWALK) == [crossing]


def test_the_lane_graph_is_read(scenario: Scenario) -> None:
    links = scenario.roadgraph.links
    found = zip(links.feature.tolist(), links.type.tolist(), links.other_id.tolist(), strict=True)
    assert list(found) == [
        (0, LaneLinkType.ENTRY_LANE, 77),
        (0, LaneLinkType.EXIT_LANE, 2),
        # Lane 3 comes towards it. One line is named by lanes 1 and 3.
        (0, LaneLinkType.RIGHT_NEIGHBOR, 4),
        (0, LaneLinkType.LEFT_BOUNDARY, 10),
        (0, LaneLinkType.RIGHT_BOUNDARY, 11),
        (1, LaneLinkType.ENTRY_LANE, 1),
        (2, LaneLinkType.LEFT_BOUNDARY, 10),
    ]
    assert links.span[2].tolist() == [0, 1, 0, 1]
    assert links.boundary_type.tolist() == [0, 0, 0, 7, 1, 0, 7]


def test_where_drivable_areas_touch_there_is_no_edge(scenario: Scenario) -> None:
    edges = polylines(scenario, MapFeatureType.ROAD_EDGE_BOUNDARY)
    assert edges == [
        [[85, 50], [85, -5], [110, -5], [110, 50]],
        [[110, 50], [110, 120], [85, 120], [85, 50]],
    ]


def test_the_road_is_on_the_left_of_its_edges() -> None:
    square = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
    for area in (square, square[::-1]):
        [edge] = road_edges([area])
        assert edge[0].tolist() == edge[-1].tolist()
        x, y = edge.T
        assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0


def test_areas_that_are_no_areas_have_no_edges() -> None:
    assert road_edges([]) == []
    assert road_edges([np.zeros((2, 2))]) == []
    same = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0]])
    assert road_edges([same, same[::-1]]) == []


def test_a_run_of_sides_is_not_cut_where_the_outline_begins() -> None:
    square = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
    other = np.array([[2.0, 0.0], [4.0, 1.0], [2.0, 2.0]])
    edges = road_edges([square, other])
    assert [edge.tolist() for edge in edges] == [
        [[2, 2], [0, 2], [0, 0], [2, 0]],
        [[2, 0], [4, 1], [2, 2]],
    ]


def row(rows: Any, step: int = 50) -> Any:
    return next(row for row in rows if row["track_id"] == "12" and row["timestep"] == step)


def every(rows: Any, **changes: Any) -> None:
    for each in rows:
        each.update(changes)


BAD_ROWS: list[tuple[Edit, str]] = [
    (lambda rows: rows.clear(), "it lacks the columns|wanted 1 to"),
    (lambda rows: [row.pop("heading") for row in rows], "it lacks the columns heading"),
    (lambda rows: row(rows).update(heading=None), "wanted numbers in the column heading, got gaps"),
    (
        lambda rows: row(rows).update(position_x=float("nan")),
        "wanted a finite number for x of track",
    ),
    (lambda rows: every(rows, timestep="5"), "wanted integers in the column timestep, got string"),
    (lambda rows: every(rows, heading="5"), "wanted numbers in the column heading, got string"),
    (lambda rows: every(rows, track_id=5), "wanted texts in the column track_id, got int64"),
    (lambda rows: every(rows, heading=[1.0]), "wanted numbers in the column heading, got list"),
    (lambda rows: row(rows).update(track_id=None), "wanted texts in the column track_id, got gaps"),
    (lambda rows: every(rows, heading=[1.0]) or row(rows).update(heading=[]), "got list"),
    (lambda rows: every(rows, timestep=0.5), "wanted integers in the column timestep, got double"),
    (lambda rows: row(rows).update(timestep=51), "a track has two rows for a step"),
    (lambda rows: row(rows).update(timestep=-1), r"wanted timesteps in \[0, 1000\)"),
    (lambda rows: row(rows).update(timestep=2**40), r"wanted timesteps in \[0, 1000\)"),
    (lambda rows: row(rows).update(object_type="boat"), "to be one of vehicle, .*, got 'boat'"),
    (lambda rows: row(rows).update(scenario_id="x"), "wanted one scenario_id, got 2"),
    (
        lambda rows: [each.update(track_id="1") for each in rows if each["track_id"] == "AV"],
        "wanted a track AV, got none",
    ),
    (lambda rows: every(rows, object_type="static"), "wanted a track AV, got none"),
]


@pytest.mark.parametrize(("edit", "message"), BAD_ROWS)
def test_bad_rows_are_an_error(edit: Edit, message: str, tmp_path: Path) -> None:
    rows = argoverse_rows()
    edit(rows)
    path = write_argoverse(tmp_path, rows=rows)
    with pytest.raises(DataError, match=f"^{path}: .*({message})") as caught:
        read_scenario(path)
    assert "\n" not in str(caught.value)


def lane(content: Any) -> Any:
    return content["lane_segments"]["1"]


BAD_MAPS: list[tuple[Edit, str]] = [
    (lambda c: c.pop("drivable_areas"), 'wanted an object with the key "drivable_areas"'),
    (lambda c: lane(c).update(lane_type="TRAM"), "lane_type: wanted one of VEHICLE, BUS, BIKE"),
    (lambda c: lane(c).update(id="1"), "id: wanted an integer, got '1'"),
    (lambda c: lane(c).update(id=2**63 - 1), "id: wanted the number of a map feature, got 9223"),
    (lambda c: lane(c).update(centerline=5), "centerline: wanted an array of objects"),
    (
        lambda c: lane(c).update(left_lane_mark_type="RED"),
        "left_lane_mark_type: wanted one of NONE",
    ),
    (lambda c: lane(c).update(successors=[None]), r"successors\[0\]: wanted an integer, got None"),
    (lambda c: lane(c)["centerline"][0].update(x=float("inf")), "wanted a finite number for x"),
    (lambda c: c.update(lane_segments=[]), r"lane_segments: wanted an object, got \[\]"),
]


@pytest.mark.parametrize(("edit", "message"), BAD_MAPS)
def test_a_bad_map_is_an_error_that_names_the_key(edit: Edit, message: str, tmp_path: Path) -> None:
    content = argoverse_map()
    edit(content)
    path = write_argoverse(tmp_path, content=content)
    with pytest.raises(DataError, match=message):
        read_scenario(path)


def test_a_scenario_of_the_test_set_is_an_error(tmp_path: Path) -> None:
    path = write_argoverse(tmp_path, rows=argoverse_rows(50))
    with pytest.raises(DataError, match="wanted at least 91 steps, got 50"):
        read_scenario(path)


def test_a_map_that_is_missing_is_named(tmp_path: Path) -> None:
    path = write_argoverse(tmp_path)
    (tmp_path / "log_map_archive_some-scenario.json").unlink()
    with pytest.raises(DataError, match="wanted its map log_map_archive_some-scenario"):
        read_scenario(path)


def test_damaged_files_are_errors(tmp_path: Path) -> None:
    path = write_argoverse(tmp_path)
    content = path.read_bytes()
    for damaged in (b"", b"PAR1", content[:-100], content[:40] + bytes(200) + content[240:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="not a parquet file, or damaged"):
            read_scenario(path)
    with pytest.raises(FileNotFoundError, match="absent"):
        read_scenario(tmp_path / "absent.parquet")


def test_a_file_of_too_many_rows_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write_argoverse(tmp_path)
    table = pyarrow.parquet.read_table(path)
    many = table.take(np.zeros(2**18 + 1, np.int64))
    pyarrow.parquet.write_table(many, path)
    with pytest.raises(DataError, match=r"wanted 1 to 262144 rows, got 262145"):
        read_scenario(path)


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write_argoverse(tmp_path)
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.append_column("heading", table.column("heading")), path)
    with pytest.raises(DataError, match="it lacks the columns heading, or has two"):
        read_scenario(path)


def test_texts_may_be_kept_in_a_dictionary(tmp_path: Path, scenario: Scenario) -> None:
    path = write_argoverse(tmp_path / "other")
    table = pyarrow.parquet.read_table(path)
    index = table.column_names.index("track_id")
    names = table.column("track_id").dictionary_encode()
    pyarrow.parquet.write_table(table.set_column(index, "track_id", names), path)
    assert read_scenario(path).agents.agent_id.tolist() == scenario.agents.agent_id.tolist()


def test_many_tracks_of_many_steps_are_refused(tmp_path: Path) -> None:
    rows = [dict(row(argoverse_rows()), track_id=str(k), timestep=k % 1000) for k in range(1000)]
    path = write_argoverse(tmp_path, rows=rows)
    with pytest.raises(DataError, match="wanted at most 262144 tracks times steps"):
        read_scenario(path)


def test_without_pyarrow_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_argoverse(tmp_path)
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"Argoverse 2 needs .*'catk-sim\[parquet\]'"):
        read_scenario(path)


def test_the_real_scenario_is_read() -> None:
    folder = shared_path("data/av2_motion_forecasting")
    [path] = folder.glob("*/*.parquet")
    scenario = read_scenario(path)
    rows = pyarrow.parquet.read_table(path).to_pylist()
    agents, log = scenario.agents, scenario.log
    used = ("vehicle", "pedestrian")
    last = [row for row in rows if row["timestep"] == 109 and row["object_type"] in used]
    assert int(log.valid[:, -1].sum()) == len(last)
    focal = agents.agent_id.tolist().index(int(rows[0]["focal_track_id"]))
    assert agents.to_predict[focal]
    assert log.valid[focal].all()
    found = (log.xy[focal, -1] + scenario.origin[:2]).tolist()
    [expected] = [row for row in last if row["track_id"] == rows[0]["focal_track_id"]]
    assert found == [expected["position_x"], expected["position_y"]]
    content = json.loads(next(path.parent.glob("*.json")).read_text())
    lanes = MapFeatureType.is_lane(scenario.roadgraph.feature_type)
    assert int(lanes.sum()) == len(content["lane_segments"])
    check_on_road(scenario)


def check_on_road(scenario: Scenario) -> None:
    """The sdc and nearly all of the lanes are on the road."""
    edges = RoadEdges.from_roadgraph(scenario.roadgraph)
    roadgraph = scenario.roadgraph
    is_lane = MapFeatureType.is_lane(roadgraph.point_type)
    for xy, share in (
        (scenario.log.xy[scenario.agents.is_sdc][0], 1.0),
        (roadgraph.xyz[is_lane, :2], 0.97),
    ):
        xyz = xy.new_zeros(len(xy), 1, 3)
        xyz[:, 0, :2] = xy
        valid = torch.ones(len(xy), dtype=torch.bool)
        distance = signed_distance_to_road_edge(xyz, valid, edges)
        assert (distance < 0).double().mean() >= share
