"""The built-in data set. Scenarios are made once for all tests: two of each kind."""

import hashlib
import math
import os
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS, NUM_STEPS, STEP_SECONDS
from catk_sim.datasets import synthetic, womd
from catk_sim.datasets.schema import leaves
from catk_sim.datasets.synthetic import KINDS, generate_futures, generate_scenario
from catk_sim.datasets.synthetic import __main__ as command
from catk_sim.datasets.synthetic import make_benchmark as benchmark_command
from catk_sim.datasets.synthetic.junctions import CROSSWALK_ROOM, cut_distances
from catk_sim.datasets.synthetic.polylines import arc_length, chain, offset, resample, smooth
from catk_sim.datasets.synthetic.road_network import Control, Movement
from catk_sim.datasets.synthetic.routes import RouteTable
from catk_sim.datasets.synthetic.scene import start_scene
from catk_sim.datasets.synthetic.sensing import observe
from catk_sim.datasets.synthetic.signals import GO, STOP, Phase, SignalPlan
from catk_sim.datasets.synthetic.statistics import format_table, measure, summarise
from catk_sim.datasets.synthetic.tracks import Tracks, overlapping_pairs
from catk_sim.datatypes import (
    AgentType,
    LaneLinkType,
    MapFeatureType,
    Scenario,
    TrafficLightState,
    Trajectory,
)
from catk_sim.geometry.boxes import box_corners
from catk_sim.metrics.offroad import offroad_indication
from tests.scenes import straight_road

SEEDS = (0, 1)
CASES = [(kind, seed) for kind in KINDS for seed in SEEDS]
each_case = pytest.mark.parametrize(("kind", "seed"), CASES)
RED = (TrafficLightState.STOP, TrafficLightState.ARROW_STOP)


@cache
def scenario(kind: str, seed: int) -> Scenario:
    return generate_scenario(seed, kind)


@cache
def futures() -> list[Scenario]:
    return generate_futures(7, 4, "signal")


def all_scenarios() -> list[Scenario]:
    return [scenario(*case) for case in CASES]


def digest(of: Scenario) -> str:
    parts = [of.scenario_id[0].encode()]
    parts += [leaf.of(of).numpy().tobytes() for leaf in leaves(Scenario)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def boxes(of: Scenario, step: int) -> list[shapely.Polygon]:
    log, here = of.log, of.log.valid[:, step]
    corners = box_corners(log.xy[here, step], log.heading[here, step], of.log_size[here, step])
    return [shapely.Polygon(corner) for corner in corners.numpy()]


def polylines(of: Scenario) -> list[np.ndarray]:
    graph = of.roadgraph
    counts = torch.bincount(graph.feature, minlength=len(graph.feature_id))
    return [points.numpy() for points in graph.xyz.split(counts.tolist())]


def speed(of: Scenario) -> torch.Tensor:
    return of.log.velocity.norm(dim=-1).masked_fill(~of.log.valid, 0.0)


# What a seed means.


def test_a_seed_means_the_same_bytes_in_another_process() -> None:
    code = (
        "from tests.catk_sim.datasets.test_synthetic import digest, generate_scenario as make;"
        "print(digest(make(1, 'tee')), digest(make(0, 'signal')))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert run.stdout.split() == [digest(scenario("tee", 1)), digest(scenario("signal", 0))]


def test_making_one_scenario_does_not_change_the_next() -> None:
    assert digest(generate_scenario(0, "merge")) == digest(scenario("merge", 0))


def test_every_seed_makes_another_scenario() -> None:
    digests = [digest(of) for of in all_scenarios()]
    assert len(set(digests)) == len(digests)
    assert len({tuple(of.origin.tolist()) for of in all_scenarios()}) == len(digests)


def test_the_seed_chooses_the_kind_if_nobody_does() -> None:
    kinds = {generate_scenario(seed).scenario_id[0].split("-")[1] for seed in range(3)}
    assert len(kinds) > 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((-1, 1, None), "seed from 0 on, got -1"),
        ((0, 0, None), "at least one future, got 0"),
        ((0, 1, "motorway"), "got 'motorway'"),
    ],
)
def test_what_cannot_be_generated_is_refused(
    arguments: tuple[int, int, str | None], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        generate_futures(*arguments)


# What a scenario holds.


@each_case
def test_a_scenario_is_complete(kind: str, seed: int) -> None:
    of = scenario(kind, seed)
    assert of.scenario_id == (f"synthetic-{kind}-{seed:06d}",)
    assert of.lacks == ("",)
    assert of.log.num_steps == NUM_STEPS
    assert all(leaf.of(of).isfinite().all() for leaf in leaves(Scenario))
    assert of.log.xy.dtype == torch.float64
    assert of.agents.valid.all()
    assert of.log.valid.any(-1).all()


@each_case
def test_the_sdc_is_there_from_beginning_to_end(kind: str, seed: int) -> None:
    of = scenario(kind, seed)
    assert of.agents.is_sdc.sum() == 1
    assert of.log.valid[of.agents.is_sdc].all()
    assert of.agents.type[of.agents.is_sdc] == AgentType.VEHICLE


@each_case
def test_agents_to_predict_are_few_and_seen_now_and_at_the_end(kind: str, seed: int) -> None:
    of = scenario(kind, seed)
    chosen = of.agents.to_predict
    assert chosen.sum() <= 8
    assert not (chosen & of.agents.is_sdc).any()
    assert of.log.valid[chosen][:, [CURRENT_STEP, -1]].all()


def test_every_kind_of_road_user_occurs() -> None:
    scenarios = all_scenarios()
    types = torch.cat([of.agents.type for of in scenarios])
    length = torch.cat([of.agents.size[:, 0] for of in scenarios])
    parked = torch.cat([speed(of).amax(-1) == 0 for of in scenarios])
    vehicle = types == AgentType.VEHICLE
    assert set(types.tolist()) == {AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.CYCLIST}
    assert (vehicle & (length > 9)).any()
    assert 0.4 < parked[vehicle].double().mean() < 0.9


def test_agents_enter_leave_and_are_lost() -> None:
    valid = torch.cat([of.log.valid for of in all_scenarios()])
    enters = ~valid[:, 0] & valid[:, -1]
    leaves_scene = valid[:, 0] & ~valid[:, -1]
    lost = (valid.diff(dim=-1).sum(-1) > 1) & ~enters & ~leaves_scene
    assert enters.any()
    assert leaves_scene.any()
    assert lost.any()


def test_positions_survive_a_shift_by_whole_metres() -> None:
    for of in all_scenarios():
        for positions in (of.log.xy, of.log.z, of.roadgraph.xyz):
            assert (positions * 512 == (positions * 512).round()).all()


def test_the_past_that_is_seen_does_not_depend_on_the_future() -> None:
    # The sdc at the origin; a lorry across the road at x = 10; someone who is in the open until
    # step 8, then behind the lorry, and from step 12 on in the open again, or not.
    poses = np.zeros((3, NUM_STEPS, 3))
    poses[1] = [10.0, 0.0, math.pi / 2]
    poses[2] = [20.0, 30.0, 0.0]
    poses[2, 9:, 1] = 0.0
    returns = poses.copy()
    returns[2, 12:, 1] = 30.0
    seen = [
        observe(
            Tracks(
                agent_id=np.arange(3),
                type=np.array([1, 1, 2]),
                size=np.array([[4.5, 2.0, 1.5], [12.0, 2.5, 3.0], [0.9, 0.9, 1.7]]),
                pose=pose,
                speed=np.zeros((3, NUM_STEPS)),
                present=np.ones((3, NUM_STEPS), dtype=bool),
            ),
            0,
            np.random.default_rng(0),
        )[2]
        for pose in (poses, returns)
    ]
    assert seen[0][:9].all()
    assert not seen[0][9:].any()
    assert seen[1][12:].all()
    np.testing.assert_array_equal(seen[0][:HISTORY_STEPS], seen[1][:HISTORY_STEPS])


def test_the_ground_rises() -> None:
    assert all(of.roadgraph.xyz[:, 2].std() > 0.05 for of in all_scenarios())


@each_case
def test_agents_stand_on_the_ground(kind: str, seed: int) -> None:
    of = scenario(kind, seed)
    ground = of.log.z[:, CURRENT_STEP] - of.agents.size[:, 2] / 2
    here = of.log.valid[:, CURRENT_STEP]
    away = torch.cdist(of.log.xy[here, CURRENT_STEP], of.roadgraph.xyz[:, :2])
    nearest = of.roadgraph.xyz[away.argmin(-1), 2]
    assert (ground[here] - nearest).abs().max() < 1.0


# How people drive.


def drives_off_the_road(of: Scenario) -> bool:
    some = Trajectory.join([of.log.at(step) for step in range(0, NUM_STEPS, 9)])
    drives = (of.agents.type != AgentType.PEDESTRIAN)[:, None] & some.valid
    return bool(offroad_indication(some, of).value[drives].any())


@each_case
def test_nobody_drives_off_the_road(kind: str, seed: int) -> None:
    assert not drives_off_the_road(scenario(kind, seed))


@each_case
def test_nobody_overlaps_anybody(kind: str, seed: int) -> None:
    for step in range(0, NUM_STEPS, 9):
        here = boxes(scenario(kind, seed), step)
        tree = shapely.STRtree(here)
        one, other = tree.query(here, predicate="intersects")
        assert (one == other).all()


@pytest.mark.parametrize("seed", [0, 3])
def test_drivers_avoid_others_by_themselves(seed: int) -> None:
    # Nobody has been left out of these tracks yet.
    scene = start_scene("tee", np.random.default_rng(seed))
    scene.record(NUM_STEPS, np.random.default_rng(seed))
    tracks = scene.tracks()
    pairs = overlapping_pairs(tracks)
    assert (tracks.type[pairs] == AgentType.PEDESTRIAN).all()


@each_case
def test_motion_is_that_of_real_vehicles(kind: str, seed: int) -> None:
    of = scenario(kind, seed)
    both = of.log.valid[:, 1:] & of.log.valid[:, :-1]
    vehicle = (of.agents.type == AgentType.VEHICLE)[:, None] & both
    moved = of.log.xy.diff(dim=-2)
    assert moved.norm(dim=-1)[both].max() < 40 * STEP_SECONDS
    turned = (of.log.heading.diff(dim=-1) + math.pi).remainder(2 * math.pi) - math.pi
    assert turned[vehicle].abs().max() < 1.2 * STEP_SECONDS
    faster = speed(of).diff(dim=-1)[vehicle] / STEP_SECONDS
    assert faster.abs().quantile(0.99) < 9.0


@each_case
def test_velocity_is_the_last_displacement(kind: str, seed: int) -> None:
    of = scenario(kind, seed)
    both = of.log.valid[:, 1:] & of.log.valid[:, :-1]
    derived = of.log.xy.diff(dim=-2) / STEP_SECONDS
    torch.testing.assert_close(
        of.log.velocity[:, 1:][both],
        derived[both],
        atol=1e-5,
        rtol=0,  # float32 in the proto
    )


def test_moving_vehicles_keep_to_lanes() -> None:
    for of in all_scenarios():
        is_lane = MapFeatureType.is_lane(of.roadgraph.point_type)
        lanes = of.roadgraph.xyz[is_lane, :2]
        moves = (of.agents.type == AgentType.VEHICLE) & (speed(of)[:, CURRENT_STEP] > 1)
        away = torch.cdist(of.log.xy[moves, CURRENT_STEP], lanes).amin(-1)
        assert (away < 2.0).all()


# Lights.


def crossings(of: Scenario) -> list[tuple[set[int], int]]:
    """Lists what all lights of a stop line said when somebody's front passed it."""
    lights, log = of.traffic_lights, of.log
    lanes = dict(zip(of.roadgraph.feature_id.tolist(), polylines(of), strict=True))
    stops = lights.stop_xyz[:, 0, :2].numpy()
    ahead = torch.stack([log.heading.cos(), log.heading.sin()], -1)
    front = (log.xy + ahead * of.log_size[..., :1] / 2).numpy()
    drives = (of.agents.type != AgentType.PEDESTRIAN).numpy()
    found = []
    for stop, lane in zip(stops, lights.lane_id.tolist(), strict=True):
        along = (lanes[lane][1] - lanes[lane][0])[:2]
        along /= np.hypot(*along)
        before = (front - stop) @ along
        aside = np.abs((front - stop) @ np.array([-along[1], along[0]]))
        near = drives[:, None] & log.valid.numpy() & (aside < 1.7) & (ahead.numpy() @ along > 0.8)
        passes = near[:, 1:] & near[:, :-1] & (before[:, :-1] < 0) & (before[:, 1:] >= 0)
        same_line = np.hypot(*(stops - stop).T) < 0.5
        for _, step in zip(*np.nonzero(passes), strict=True):
            found.append((set(lights.state[same_line, step].tolist()), int(step)))
    return found


@cache
def signalised_benchmark() -> list[Scenario]:
    return [of for of in synthetic.load_benchmark() if "signal" in of.scenario_id[0]]


def test_nobody_runs_a_red_light() -> None:
    scenarios = [*(scenario("signal", seed) for seed in SEEDS), *signalised_benchmark()]
    found = [passing for of in scenarios for passing in crossings(of)]
    assert len(found) > 20
    assert not [states for states, _ in found if states <= set(RED)]


def test_lights_are_known_at_every_step_and_change() -> None:
    lights = [of.traffic_lights for of in signalised_benchmark()]
    assert all(each.valid.all() for each in lights)
    assert any((each.state.diff(dim=-1) != 0).any() for each in lights)


def test_lights_stand_where_their_lanes_begin() -> None:
    of = scenario("signal", 0)
    lanes = dict(zip(of.roadgraph.feature_id.tolist(), polylines(of), strict=True))
    for lane, stop in zip(
        of.traffic_lights.lane_id.tolist(), of.traffic_lights.stop_xyz, strict=True
    ):
        np.testing.assert_array_equal(stop[0].numpy(), lanes[lane][0])


def test_only_signalised_scenes_have_lights() -> None:
    for kind, seed in CASES:
        has_lights = len(scenario(kind, seed).traffic_lights.lane_id) > 0
        assert has_lights == (kind == "signal")


def test_a_signal_plan_gives_way_to_one_phase_at_a_time() -> None:
    straight = (Movement.STRAIGHT, Movement.RIGHT)
    phases = (Phase((0, 2), straight, 10.0), Phase((1, 3), tuple(Movement), 8.0))
    plan = SignalPlan(phases, 0.0, num_arms=4, has_arrows=False)
    assert plan.lights(5.0)[0].tolist() == [GO, STOP, GO]
    assert plan.lights(5.0)[1].tolist() == [STOP] * 3
    # 10 s of green, 3.5 s of caution, 1.5 s of clearance.
    assert (plan.lights(14.0) == STOP).all()
    assert plan.lights(16.0)[3].tolist() == [GO] * 3
    assert plan.seconds_of_red(5.0, arm=1) == pytest.approx(10.0)
    assert plan.seconds_of_red(5.0, arm=0) == 0.0


# Futures.


def test_the_first_future_is_the_scenario_of_the_seed() -> None:
    assert digest(futures()[0]) == digest(generate_scenario(7, "signal"))


def history(of: Scenario) -> dict[int, list[float]]:
    seen = of.log.valid[:, :HISTORY_STEPS].any(-1).nonzero()[:, 0].tolist()
    xy = of.log.xy.masked_fill(~of.log.valid[..., None], 0.0)[:, :HISTORY_STEPS]
    past = torch.cat([xy.flatten(1), of.log.valid[:, :HISTORY_STEPS].double()], dim=-1)
    return {int(of.agents.agent_id[row]): past[row].tolist() for row in seen}


def test_futures_share_their_history() -> None:
    first, *others = futures()
    for other in others:
        assert history(other) == history(first)
        torch.testing.assert_close(other.roadgraph.xyz, first.roadgraph.xyz, rtol=0, atol=0)
        same_light = other.traffic_lights.state == first.traffic_lights.state
        assert same_light[:, :HISTORY_STEPS].all()
        assert (
            other.agents.agent_id[other.agents.is_sdc] == first.agents.agent_id[first.agents.is_sdc]
        )


def test_futures_differ_in_the_end() -> None:
    places = []
    for future in futures():
        ids = future.agents.agent_id.tolist()
        places.append(dict(zip(ids, future.log.xy[:, -1], strict=True)))
    known = set.intersection(*(set(place) for place in places))
    away = [
        max(float((one[agent] - other[agent]).norm()) for agent in known)
        for one, other in pairwise(places)
    ]
    assert min(away) > 5.0


@pytest.mark.parametrize("future", range(4))
def test_futures_are_lawful(future: int) -> None:
    of = futures()[future]
    assert not drives_off_the_road(of)
    assert not [states for states, _ in crossings(of) if states <= set(RED)]


# Maps.


@each_case
def test_lanes_lead_to_the_lanes_that_they_are_linked_with(kind: str, seed: int) -> None:
    graph, lines = scenario(kind, seed).roadgraph, polylines(scenario(kind, seed))
    row_of = {number: row for row, number in enumerate(graph.feature_id.tolist())}
    links = {kind: set() for kind in LaneLinkType}
    for feature, link, other in zip(
        graph.links.feature.tolist(),
        graph.links.type.tolist(),
        graph.links.other_id.tolist(),
        strict=True,
    ):
        links[LaneLinkType(link)].add((feature, row_of[other]))
    exits = links[LaneLinkType.EXIT_LANE]
    assert exits
    assert {(b, a) for a, b in exits} == links[LaneLinkType.ENTRY_LANE]
    assert max(np.hypot(*(lines[a][-1] - lines[b][0])[:2]) for a, b in exits) < 0.05
    left, right = links[LaneLinkType.LEFT_NEIGHBOR], links[LaneLinkType.RIGHT_NEIGHBOR]
    assert {(b, a) for a, b in left} == right
    for lane, neighbor in left:
        assert np.hypot(*(lines[lane][0] - lines[neighbor][0])[:2]) == pytest.approx(3.5, abs=0.1)


@each_case
def test_maps_have_lanes_with_limits_and_edges(kind: str, seed: int) -> None:
    graph = scenario(kind, seed).roadgraph
    lanes = MapFeatureType.is_lane(graph.feature_type)
    assert ((graph.speed_limit >= 10) & (graph.speed_limit <= 65))[lanes].all()
    assert (graph.speed_limit == 0)[~lanes].all()
    assert graph.interpolating[lanes].any()
    assert MapFeatureType.is_road_edge(graph.feature_type).sum() > 4
    assert MapFeatureType.is_road_line(graph.feature_type).any()


def test_every_kind_of_map_feature_occurs() -> None:
    codes = set(torch.cat([of.roadgraph.feature_type for of in all_scenarios()]).tolist())
    assert {
        MapFeatureType.LANE_FREEWAY,
        MapFeatureType.LANE_SURFACE_STREET,
        MapFeatureType.LANE_BIKE_LANE,
        MapFeatureType.ROAD_LINE_BROKEN_SINGLE_WHITE,
        MapFeatureType.ROAD_LINE_SOLID_SINGLE_WHITE,
        MapFeatureType.ROAD_LINE_SOLID_DOUBLE_YELLOW,
        MapFeatureType.ROAD_EDGE_BOUNDARY,
        MapFeatureType.ROAD_EDGE_MEDIAN,
        MapFeatureType.STOP_SIGN,
        MapFeatureType.CROSSWALK,
        MapFeatureType.SPEED_BUMP,
        MapFeatureType.DRIVEWAY,
    } <= codes


def test_stop_signs_know_their_lanes() -> None:
    graph = scenario("all_stop", 0).roadgraph
    links = graph.links
    signed = links.feature[links.type == LaneLinkType.STOP_SIGN_LANE]
    signs = (graph.feature_type == MapFeatureType.STOP_SIGN).nonzero()[:, 0]
    assert set(signed.tolist()) == set(signs.tolist())


# Files.


@pytest.mark.parametrize("kind", ["signal", "all_stop"])
def test_a_scenario_comes_back_from_waymos_proto(kind: str) -> None:
    pytest.importorskip("waymo_open_dataset")
    of = scenario(kind, 0)
    data = womd.scenario_to_proto(of).SerializeToString()
    assert digest(womd.parse_scenario(data)) == digest(of)


def test_waymos_own_class_reads_what_the_command_writes(tmp_path: Path) -> None:
    scenario_pb2 = pytest.importorskip("waymo_open_dataset.protos.scenario_pb2")
    path = tmp_path / "some.tfrecord"
    command.main([str(path), "--count", "2", "--seed", "1", "--kind", "tee"])
    read = list(womd.read_scenarios(path))
    assert [digest(each) for each in read] == [
        digest(each) for each in (scenario("tee", 1), generate_scenario(2, "tee"))
    ]
    proto = scenario_pb2.Scenario.FromString(path.read_bytes()[12:][: _first_length(path)])
    assert proto.scenario_id == "synthetic-tee-000001"
    assert len(proto.tracks) == scenario("tee", 1).log.num_agents
    assert proto.current_time_index == CURRENT_STEP


def _first_length(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[:8], "little")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(["--count", "0"], "count"), (["--seed", "-1"], "seed"), (["--kind", "x"], "kind")],
)
def test_the_command_refuses_what_cannot_be_generated(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["out.tfrecord", *arguments])
    assert f"{problem}: wanted" in capsys.readouterr().err.replace("\n", " ")


def test_the_benchmark_is_small_and_of_every_kind() -> None:
    scenarios = synthetic.load_benchmark()
    assert synthetic.benchmark_path().stat().st_size <= 4_000_000
    assert len(scenarios) >= 32
    assert {of.scenario_id[0].split("-")[1] for of in scenarios} == set(KINDS)
    assert len({of.scenario_id for of in scenarios}) == len(scenarios)
    assert all(of.log.valid[of.agents.is_sdc].all() for of in scenarios)


def test_the_benchmark_is_made_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_command, "KINDS", KINDS[:1])
    monkeypatch.setattr(benchmark_command, "PER_KIND", 1)
    benchmark_command.main(["--output", str(tmp_path / "made.tfrecord.gz")])
    made = list(womd.read_scenarios(tmp_path / "made.tfrecord.gz"))
    assert [of.scenario_id[0].split("-")[1] for of in made] == list(KINDS[:1])


# Statistics.


def test_statistics_of_a_hand_made_scene() -> None:
    # A car at 10 m/s, a parked car that is there for 55 of 91 steps, a standing pedestrian.
    table = summarise(iter([straight_road()]))
    assert table["tracks per scene, median"] == 3
    assert table["moving vehicles per scene, median"] == 1
    assert table["share of stationary vehicles"] == 0.5
    assert table["share of valid track steps"] == pytest.approx((91 + 91 + 55) / 273)
    assert table["speed of moving vehicles (m/s), median"] == 10
    assert table["acceleration, absolute (m/s^2), 95 %"] == 0
    # From (-30, -2) to (10, 6), and the other way round; the parked car is 31 m from the latter.
    assert table["distance to the nearest agent (m), median"] == pytest.approx(
        math.hypot(30, 8), abs=1e-4
    )
    assert table["gap of moving vehicles to the vehicle ahead (m), median"] != 70 - 4.8
    assert table["lanes per scene, 90 %"] == 2
    assert table["share of vehicle steps off the road"] == 0
    assert table["share of agent steps with an overlap"] == 0


def test_statistics_lie_side_by_side() -> None:
    table = format_table({"a": {"speed": 1.0}, "b": {"speed": 2.5}})
    assert table == "| | a | b |\n|---|--:|--:|\n| speed | 1 | 2.5 |"


def test_statistics_find_no_fault() -> None:
    values = measure(scenario("tee", 0))
    assert values["share of vehicle steps off the road"].sum() == 0
    assert values["share of agent steps with an overlap"].sum() == 0


# Parts.


def test_offset_curves_are_parallel() -> None:
    line = np.stack([np.linspace(0, 10, 11), np.zeros(11)], axis=-1)
    np.testing.assert_allclose(offset(line, 2.0)[:, 1], 2.0)
    np.testing.assert_allclose(offset(line, -1.0)[:, 1], -1.0)


@given(st.floats(0.3, 5.0), st.integers(2, 30))
def test_resampling_keeps_the_ends_and_the_spacing(spacing: float, count: int) -> None:
    angle = np.linspace(0, 1, count)
    arc = 20 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    points = resample(arc, spacing)
    np.testing.assert_allclose(points[[0, -1]], arc[[0, -1]])
    assert np.diff(arc_length(points)).max() <= spacing + 1e-6


def test_smoothing_keeps_straight_lines_and_ends() -> None:
    line = np.stack([np.arange(20.0), 2 * np.arange(20.0)], axis=-1)
    np.testing.assert_allclose(smooth(line, 7), line, atol=1e-9)


def test_chains_join_what_touches() -> None:
    a, b, c = (
        np.array([[0.0, 0], [1, 0]]),
        np.array([[1.0, 0], [1, 1]]),
        np.array([[5.0, 5], [6, 6]]),
    )
    joined = chain([b, c, a])
    assert sorted(len(piece) for piece in joined) == [2, 3]


def test_closed_chains_come_back_whole() -> None:
    corners = np.array([[0.0, 0], [1, 0], [1, 1], [0, 0]])
    [ring] = chain([corners[index : index + 2] for index in range(3)])
    assert len(ring) == 4


def test_streets_end_where_the_kerbs_corners_begin() -> None:
    # Two streets of 4 m half width at right angles: the kerbs meet 4 m from the centre.
    quarter = np.pi / 2
    cuts = cut_distances([0.0, quarter, 2 * quarter, 3 * quarter], [4.0] * 4, [4.0] * 4, 6.0)
    assert cuts == pytest.approx([4.0 + 6.0 + CROSSWALK_ROOM] * 4)


@given(st.integers(0, 10**6))
def test_overlaps_are_those_of_shapely(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = 6
    tracks = Tracks(
        agent_id=np.arange(count),
        type=np.ones(count, dtype=np.int64),
        size=rng.uniform(1.0, 5.0, (count, 3)),
        pose=rng.uniform(-6.0, 6.0, (count, 2, 3)),
        speed=np.zeros((count, 2)),
        present=rng.random((count, 2)) < 0.8,
    )
    expected = set()
    corners = box_corners(
        torch.tensor(tracks.pose[..., :2]),
        torch.tensor(tracks.pose[..., 2]),
        torch.tensor(tracks.size)[:, None].expand(count, 2, 3),
    )
    for step in range(2):
        shapes = [shapely.Polygon(corner) for corner in corners[:, step].numpy()]
        expected |= {
            (i, j)
            for i in range(count)
            for j in range(i)
            if tracks.present[[i, j], step].all() and shapes[i].intersects(shapes[j])
        }
    assert {(int(b), int(a)) for a, b in overlapping_pairs(tracks)} == expected


def test_a_branched_scene_does_not_disturb_the_first() -> None:
    scene = start_scene("tee", np.random.default_rng(5))
    branch = scene.branch()
    branch.record(20, np.random.default_rng(0))
    assert scene.step == 0
    assert np.isnan(scene.poses).all()
    scene.record(20, np.random.default_rng(0))
    np.testing.assert_array_equal(scene.poses, branch.poses)


@pytest.mark.parametrize(
    ("kind", "control"),
    [
        ("signal", Control.SIGNAL),
        ("all_stop", Control.ALL_STOP),
        ("tee", Control.MINOR_STOP),
        ("roundabout", Control.YIELD),
        ("merge", Control.FREE),
    ],
)
def test_each_kind_has_its_junction(kind: str, control: Control) -> None:
    scene = start_scene(kind, np.random.default_rng(1))
    assert control in {junction.control for junction in scene.network.junctions}


def test_a_table_of_routes_that_grows_is_as_one_that_had_room() -> None:
    roomy = start_scene("signal", np.random.default_rng(0)).traffic.table
    small = RouteTable(roomy.network, roomy.passages, roomy.conflicts, capacity=1)
    for lanes in roomy.lanes:
        small.add(lanes)
    count = len(roomy.lanes)
    assert count > 4
    for name, rows in vars(roomy).items():
        if isinstance(rows, np.ndarray):
            np.testing.assert_array_equal(getattr(small, name)[:count], rows[:count], err_msg=name)
