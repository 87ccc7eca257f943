import math
from typing import Any

import numpy as np
import pytest
import torch

from catk_sim.datasets.batching import collate
from catk_sim.datasets.synthetic import KINDS, generate_scenario
from catk_sim.datasets.womd import read_scenarios
from catk_sim.datatypes import AgentType, MapFeatureType, Scenario, Trajectory
from catk_sim.visualization import BirdsEyeRenderer, PredictedModes, colors, render_state
from catk_sim.visualization.canvas import Frame
from tests import scenes
from tests.catk_sim.visualization.episodes import moved, state_of
from tests.shared import shared_path

SDC, PEDESTRIAN, PARKED_CAR = 0, 1, 2
NOBODY = torch.zeros(3, dtype=torch.bool)


def road() -> Scenario:
    return scenes.straight_road()


def pixel(frame: Frame, right: float, up: float, metres: float) -> colors.Color:
    """The colour so many metres to the right of the middle of the picture, and up."""
    size = len(frame)
    column = round(right * size / metres + (size - 1) / 2)
    row = round(-up * size / metres + (size - 1) / 2)
    red, green, blue = frame[row, column].tolist()
    return red, green, blue


def close_up(scenario: Scenario, agent: int, step: int = 30, **kwargs: Any) -> Frame:
    """Sixteen metres around an agent, 25 pixels each."""
    renderer = BirdsEyeRenderer(scenario, size=400, metres=16.0, follow=agent)
    controlled = kwargs.pop("controlled", scenario.agents.valid)
    history = scenario.log.slice(step - 10, step + 1)
    return renderer.render_motion(history, step=step, controlled=controlled, **kwargs)


def has(frame: Frame, color: colors.Color) -> bool:
    return bool((frame == np.array(color)).all(axis=-1).any())


def test_the_sdc_has_its_own_colour_where_it_is() -> None:
    assert pixel(close_up(road(), SDC), 0, 0, 16) == colors.SDC


def test_a_whole_scene_shows_the_sdc_where_it_is() -> None:
    # Agents of the log reach from (-40, -2) to (50, 6), so the middle is (5, 2).
    frame = render_state(state_of(road(), 30), size=500, metres=100.0)
    assert pixel(frame, -10 - 5, -2 - 2, 100) == colors.SDC


@pytest.mark.parametrize("kind", list(AgentType))
def test_an_agent_has_the_colour_of_its_type(kind: AgentType) -> None:
    scenario = road()
    types = scenario.agents.type.clone()
    types[PARKED_CAR] = int(kind)
    scenario = scenario.replace(agents=scenario.agents.replace(type=types))
    # Towards the left back corner, which no heading mark covers.
    assert pixel(close_up(scenario, PARKED_CAR), -2.1, 0.85, 16) == colors.AGENTS[kind]


def test_an_agent_is_as_long_and_wide_as_its_box() -> None:
    frame = close_up(road(), SDC).astype(int)
    # 4.8 m by 2 m, 25 pixels each, and an outline two or three pixels wide.
    road_color = frame[200, 395]
    row = np.abs(frame[200, 140:] - road_color).max(axis=-1) > 40
    assert 140 + np.flatnonzero(row)[-1] == pytest.approx(199.5 + 60, abs=2)
    column = np.abs(frame[:, 170] - road_color).max(axis=-1) > 90
    inside = np.flatnonzero(column[160:240]) + 160
    assert inside[0] == pytest.approx(199.5 - 25, abs=2)
    assert inside[-1] == pytest.approx(199.5 + 25, abs=2)


@pytest.mark.parametrize("heading", [0.0, math.pi / 2, 2.5, -1.0])
def test_the_mark_is_where_an_agent_is_heading(heading: float) -> None:
    scenario = road()
    turned = torch.full_like(scenario.log.heading, heading)
    frame = close_up(scenario.replace(log=scenario.log.replace(heading=turned)), SDC)
    ahead = 1.2 * math.cos(heading), 1.2 * math.sin(heading)
    assert pixel(frame, *ahead, 16) == colors.WHITE
    assert pixel(frame, -ahead[0], -ahead[1], 16) == colors.SDC


@pytest.mark.parametrize("heading", [0.6, -2.2])
def test_a_turned_box_fills_its_corners_and_no_more(heading: float) -> None:
    scenario = road()
    turned = torch.full_like(scenario.log.heading, heading)
    empty = torch.zeros_like(scenario.roadgraph.point_valid)
    scenario = _with_map(scenario.replace(log=scenario.log.replace(heading=turned)), empty)
    frame = close_up(scenario, SDC)
    cos, sin = math.cos(heading), math.sin(heading)
    for x, y in [(2.4, 1.0), (2.4, -1.0), (-2.4, 1.0), (-2.4, -1.0)]:
        right, up = cos * x - sin * y, sin * x + cos * y
        assert pixel(frame, 0.87 * right, 0.87 * up, 16) == colors.SDC
        assert pixel(frame, 1.1 * right, 1.1 * up, 16) == colors.GROUND


def test_a_pedestrian_stays_visible_in_a_wide_view() -> None:
    # One metre is a single pixel, so it is drawn larger and without a mark.
    renderer = BirdsEyeRenderer(road(), size=300, metres=300.0, follow=PEDESTRIAN)
    frame = renderer.render(state_of(road(), 30))
    assert frame[150, 150].tolist() == list(colors.ORANGE)


def test_an_agent_that_replays_the_log_is_pale() -> None:
    frame = close_up(road(), PARKED_CAR, controlled=NOBODY)
    assert pixel(frame, -1, 0, 16) == colors.tint(colors.BLUE, colors.WHITE, 0.65)


def test_a_simulated_agent_leaves_a_hollow_box_where_the_log_has_it() -> None:
    scenario = road()
    renderer = BirdsEyeRenderer(scenario, size=400, metres=16.0, follow=PARKED_CAR)
    aside = moved(scenario, 0.0, 4.0).slice(30, 31)
    simulated = renderer.render_motion(
        aside, step=30, controlled=torch.tensor([False, False, True])
    )
    replayed = renderer.render_motion(aside, step=30, controlled=NOBODY)
    # The log has the left side of the car 4 m below the middle, and 1 m up from there.
    assert max(pixel(simulated, -1, -3, 16)) < max(pixel(replayed, -1, -3, 16)) - 50
    assert pixel(simulated, -1, -4.5, 16) == pixel(replayed, -1, -4.5, 16)


def test_what_the_log_holds_of_absent_agents_is_not_drawn() -> None:
    scenario = road()
    valid, xy = scenario.log.valid.clone(), scenario.log.xy.clone()
    valid[PARKED_CAR] = False
    xy[PARKED_CAR] += 3.0
    frames = [
        # The simulation has the car, the log has not.
        BirdsEyeRenderer(scenario.replace(log=log), size=300).render_motion(
            scenario.log.slice(30, 31), step=30, controlled=scenario.agents.valid
        )
        for log in (scenario.log.replace(valid=valid), scenario.log.replace(valid=valid, xy=xy))
    ]
    assert np.array_equal(frames[0], frames[1])


def test_an_absent_agent_is_not_drawn() -> None:
    scenario = road()
    # The parked car has left at step 61, and has not come at step 5.
    without = scenario.log.valid.clone()
    without[PARKED_CAR] = False
    never = scenario.log.replace(valid=without)
    renderer = BirdsEyeRenderer(scenario, size=200, metres=40.0, follow=PARKED_CAR)
    for step in (5, 75):
        shown, bare = (
            renderer.render_motion(log.slice(step, step + 1), step=step, controlled=NOBODY)
            for log in (scenario.log, never)
        )
        assert np.array_equal(shown, bare)


def test_padding_is_not_drawn() -> None:
    scenario = road()
    smaller = scenario.map(lambda tensor: tensor)
    larger = _with_more_of_everything(scenario)
    padded = collate([smaller, larger]).select(0)
    assert padded.log.num_agents > scenario.log.num_agents
    assert np.array_equal(
        render_state(state_of(padded, 30), size=300), render_state(state_of(scenario, 30), size=300)
    )


def _with_more_of_everything(scenario: Scenario) -> Scenario:
    roadgraph, lights = scenario.roadgraph, scenario.traffic_lights
    more = roadgraph.map(lambda tensor: torch.cat([tensor, tensor]))
    twice = type(scenario.log).cat([scenario.log, scenario.log])
    return scenario.replace(
        log=twice,
        log_size=torch.cat([scenario.log_size, scenario.log_size]),
        agents=type(scenario.agents).cat([scenario.agents, scenario.agents]),
        roadgraph=more,
        traffic_lights=type(lights).cat([lights, lights]),
    )


def test_the_light_changes_its_colour_with_its_state() -> None:
    # The light is 20 m east of the parked car; it turns from go to stop at step 40.
    renderer = BirdsEyeRenderer(road(), size=400, metres=50.0, follow=PARKED_CAR)
    lamp = [pixel(renderer.render(state_of(road(), step)), 20, 0, 50) for step in (38, 39, 40, 41)]
    assert lamp == [colors.BLUISH_GREEN] * 2 + [colors.VERMILION] * 2


def test_a_light_is_drawn_where_its_traffic_stops_at_the_step() -> None:
    scenario = road()
    points = scenario.traffic_lights.stop_xyz.clone()
    points[:, 30:, 0] = 50.0
    lights = scenario.traffic_lights.replace(stop_xyz=points)
    frame = render_state(
        state_of(scenario.replace(traffic_lights=lights), 30),
        size=400,
        metres=50.0,
        follow=PARKED_CAR,
    )
    assert pixel(frame, 10, 0, 50) == colors.BLUISH_GREEN


def test_a_light_that_was_not_observed_is_not_drawn() -> None:
    scenario = road()
    dark = scenario.traffic_lights.replace(valid=torch.zeros_like(scenario.traffic_lights.valid))
    frame = render_state(
        state_of(scenario.replace(traffic_lights=dark), 30),
        size=400,
        metres=50.0,
        follow=PARKED_CAR,
    )
    assert not has(frame, colors.BLUISH_GREEN)


def test_a_collision_is_marked_around_the_agent_it_befell() -> None:
    hit = torch.tensor([False, False, True])
    # A car of 4.8 m by 2 m, and 2.5 pixels of a picture of 400.
    assert pixel(close_up(road(), PARKED_CAR, collided=hit), 0, 2.6 + 0.1, 16) == colors.COLLISION
    assert has(close_up(road(), PARKED_CAR, collided=hit), colors.COLLISION)
    assert not has(close_up(road(), PARKED_CAR), colors.COLLISION)
    assert not has(close_up(road(), SDC, collided=hit), colors.COLLISION)


def test_an_agent_off_the_road_is_marked() -> None:
    off = torch.tensor([False, True, False])
    assert has(close_up(road(), PEDESTRIAN, offroad=off), colors.OFFROAD)
    assert not has(close_up(road(), PEDESTRIAN), colors.OFFROAD)


def test_the_mark_of_an_agent_off_the_road_lies_around_its_box() -> None:
    off = torch.tensor([False, False, True])
    marked = (close_up(road(), PARKED_CAR, offroad=off) == colors.OFFROAD).all(axis=-1)
    # A car of 120 by 50 pixels in the middle of 400 by 400.
    rows, columns = marked.any(axis=1).nonzero()[0], marked.any(axis=0).nonzero()[0]
    assert 170 < rows[0] < 175
    assert 224 < rows[-1] < 229
    assert 135 < columns[0] < 140
    assert 259 < columns[-1] < 264
    assert not marked[176:224, 141:259].any()


def test_a_collision_is_seen_on_who_is_off_the_road_too() -> None:
    both = torch.tensor([False, False, True])
    frame = close_up(road(), PARKED_CAR, collided=both, offroad=both)
    alone = close_up(road(), PARKED_CAR, collided=both)
    seen = (alone == colors.COLLISION).all(axis=-1)
    assert (frame[seen] == colors.COLLISION).all()
    assert has(frame, colors.OFFROAD)


def test_marks_hide_no_agent() -> None:
    everybody = torch.ones(3, dtype=torch.bool)
    plain = close_up(road(), PARKED_CAR)
    marked = close_up(road(), PARKED_CAR, collided=everybody, offroad=everybody)
    inside = slice(200 - 22, 200 + 22), slice(200 - 52, 200 + 52)
    np.testing.assert_array_equal(marked[inside], plain[inside])


def test_a_moving_agent_draws_a_trail_where_it_was() -> None:
    scenario = road()
    renderer = BirdsEyeRenderer(scenario, size=400, metres=40.0, follow=SDC)
    bare = renderer.render_motion(scenario.log.slice(30, 31), step=30, controlled=NOBODY)
    frame = renderer.render_motion(scenario.log.slice(0, 31), step=30, controlled=NOBODY)
    # Ten metres a second: 8 m back is 0.8 s ago.
    assert pixel(frame, -8, 0, 40) != pixel(bare, -8, 0, 40)
    assert pixel(frame, 8, 0, 40) == pixel(bare, 8, 0, 40)


def test_a_trail_fades_with_age() -> None:
    scenario = road()
    frame = BirdsEyeRenderer(scenario, size=400, metres=80.0, follow=SDC).render_motion(
        scenario.log.slice(0, 31), step=30, controlled=NOBODY
    )
    # Its green is the darkest part of the sdc's purple; 30 m of trail, in three shades.
    greens = [pixel(frame, -back, 0, 80)[1] for back in (5, 15, 25)]
    assert greens == sorted(set(greens))


def test_a_trail_is_interrupted_where_the_agent_was_absent() -> None:
    scenario = road()
    valid = scenario.log.valid.clone()
    valid[SDC, 20:26] = False
    log = scenario.log.replace(valid=valid)
    renderer = BirdsEyeRenderer(scenario, size=400, metres=40.0, follow=SDC)
    bare = renderer.render_motion(log.slice(30, 31), step=30, controlled=NOBODY)
    frame = renderer.render_motion(log.slice(0, 31), step=30, controlled=NOBODY)
    assert pixel(frame, -8, 0, 40) == pixel(bare, -8, 0, 40)
    assert pixel(frame, -14, 0, 40) != pixel(bare, -14, 0, 40)


def test_a_map_feature_of_every_type_is_drawn() -> None:
    scenario = road()
    roadgraph = scenario.roadgraph
    empty = render_state(
        state_of(_with_map(scenario, torch.zeros_like(roadgraph.point_valid)), 30), size=200
    )
    triangle = torch.tensor([[-30.0, 10.0, 0.0], [0.0, 30.0, 0.0], [30.0, 10.0, 0.0]])
    for kind in MapFeatureType:
        points = triangle[:1] if kind == MapFeatureType.STOP_SIGN else triangle
        graph = roadgraph.replace(
            xyz=points,
            feature=torch.zeros(len(points), dtype=torch.int64),
            point_valid=torch.ones(len(points), dtype=torch.bool),
            feature_type=torch.full((4,), int(kind)),
        )
        frame = render_state(state_of(scenario.replace(roadgraph=graph), 30), size=200)
        assert not np.array_equal(frame, empty), kind.name


def _with_map(scenario: Scenario, point_valid: torch.Tensor) -> Scenario:
    return scenario.replace(roadgraph=scenario.roadgraph.replace(point_valid=point_valid))


def test_equal_states_give_equal_pictures_whatever_was_drawn_before() -> None:
    scenario = road()
    renderer = BirdsEyeRenderer(scenario, size=200, metres=20.0, follow=SDC)
    steps = (12, 90, 40, 12, 41)
    for step in steps:
        again = render_state(state_of(scenario, step), size=200, metres=20.0, follow="sdc")
        assert np.array_equal(renderer.render(state_of(scenario, step)), again)


def test_a_picture_belongs_to_who_asked_for_it() -> None:
    renderer = BirdsEyeRenderer(road(), size=100)
    state = state_of(road(), 30)
    first = renderer.render(state)
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(renderer.render(state), kept)


def test_drawing_leaves_the_state_alone() -> None:
    state = state_of(road(), 30)
    before = state.map(torch.clone)
    render_state(state, size=100)
    assert torch.equal(state.history.xy, before.history.xy)
    assert torch.equal(state.scenario.roadgraph.xyz, before.scenario.roadgraph.xyz)


def test_single_and_double_precision_give_the_same_picture() -> None:
    scenario = road()
    single, double = (
        render_state(state_of(scenario.to(dtype), 30), size=200)
        for dtype in (torch.float32, torch.float64)
    )
    assert np.array_equal(single, double)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_state_may_lie_on_any_device() -> None:
    state = state_of(road(), 30)
    assert np.array_equal(render_state(state, size=200), render_state(state.to("cuda"), size=200))


@pytest.mark.parametrize("shift", [(64.0, -32.0), (1024.0, 512.0)])
def test_moving_the_world_moves_the_picture_with_it(shift: tuple[float, float]) -> None:
    scenario = road()
    offset = torch.tensor([*shift, 0.0])
    elsewhere = scenario.replace(
        log=moved(scenario, *shift),
        roadgraph=scenario.roadgraph.replace(xyz=scenario.roadgraph.xyz + offset),
        traffic_lights=scenario.traffic_lights.replace(
            stop_xyz=scenario.traffic_lights.stop_xyz + offset
        ),
    )
    here, there = (
        render_state(state_of(each, 30), size=320, metres=80.0, follow="sdc").astype(int)
        for each in (scenario, elsewhere)
    )
    assert np.array_equal(here, there)  # Powers of two, so that nothing is rounded.


def test_the_scene_shows_every_agent_of_the_log() -> None:
    frames = {step: render_state(state_of(road(), step), size=400) for step in (10, 90)}
    assert all(has(frame, colors.SDC) for frame in frames.values())


def test_an_agent_that_left_is_followed_from_where_it_was() -> None:
    scenario = road()
    renderer = BirdsEyeRenderer(scenario, size=400, metres=50.0, follow=PARKED_CAR)
    for step in (65, 90):  # It leaves after step 60, so at 90 the motion does not have it at all.
        assert pixel(renderer.render(state_of(scenario, step)), 20, 0, 50) == colors.VERMILION


def test_an_agent_that_is_half_outside_the_picture_is_drawn_by_half() -> None:
    # The parked car's centre is 1 m left of a picture 20 m wide around the sdc.
    scenario = road()
    xy = scenario.log.xy.clone()
    xy[PARKED_CAR] = xy[SDC] - torch.tensor([11.0, 0.0])
    frame = BirdsEyeRenderer(scenario, size=400, metres=20.0, follow=SDC).render_motion(
        scenario.log.replace(xy=xy).slice(30, 31), step=30, controlled=~NOBODY
    )
    assert pixel(frame, -9.9, 0.8, 20) == colors.BLUE


def test_after_the_log_there_are_neither_lights_nor_ghosts() -> None:
    scenario = road()
    renderer = BirdsEyeRenderer(scenario, size=400, metres=50.0, follow=PARKED_CAR)
    motion = moved(scenario, 0.0, 6.0).slice(30, 31)
    frames = {
        step: renderer.render_motion(motion, step=step, controlled=~NOBODY) for step in (30, 91)
    }
    assert has(frames[30], colors.BLUISH_GREEN)
    assert not has(frames[91], colors.BLUISH_GREEN)
    # The left end of the box in the log, 6 m below the middle.
    assert pixel(frames[30], -2.4, -6, 50) != pixel(frames[91], -2.4, -6, 50)


def test_a_picture_of_nobody_shows_the_map() -> None:
    scenario = road()
    nobody = scenario.replace(agents=scenario.agents.replace(valid=NOBODY))
    frame = render_state(state_of(nobody, 30, controlled=~NOBODY), size=200)
    no_log = torch.zeros_like(scenario.log.valid)
    empty = nobody.replace(log=scenario.log.replace(valid=no_log))
    assert np.array_equal(frame, render_state(state_of(empty, 30), size=200))


def test_title_and_legend_are_written() -> None:
    state = state_of(road(), 30)
    bare = render_state(state, size=400)
    assert not np.array_equal(bare, render_state(state, size=400, title="CAT-K"))
    assert not np.array_equal(bare, render_state(state, size=400, legend=True))


@pytest.mark.parametrize("size", [16, 97, 300])
def test_a_picture_has_the_size_that_was_asked_for(size: int) -> None:
    frame = render_state(state_of(road(), 30), size=size, legend=True)
    assert frame.shape == (size, size, 3)
    assert frame.dtype == np.uint8


def test_a_batch_is_refused() -> None:
    scenario = road()
    batch = Scenario.stack([scenario, scenario])
    with pytest.raises(ValueError, match=r"batch shape \(2,\).*select"):
        BirdsEyeRenderer(batch)
    states = state_of(scenario, 30)
    with pytest.raises(ValueError, match=r"batch shape \(2,\)"):
        render_state(type(states).stack([states, states]))
    with pytest.raises(ValueError, match=r"batch shape \(2,\)"):
        BirdsEyeRenderer(scenario).render(type(states).stack([states, states]))


def test_a_motion_of_other_agents_is_refused() -> None:
    renderer = BirdsEyeRenderer(road(), size=100)
    with pytest.raises(ValueError, match=r"wanted .*3 agents.*got \(2, 5\)"):
        renderer.render_motion(scenes.two_cars(), step=0, controlled=NOBODY[:2])
    with pytest.raises(ValueError, match=r"got \(3, 0\)"):
        renderer.render_motion(road().log.slice(0, 0), step=0, controlled=NOBODY)


@pytest.mark.parametrize("field", ["xy", "heading"])
def test_a_pose_that_is_not_a_number_is_refused(field: str) -> None:
    log = road().log
    broken = getattr(log, field).clone()
    broken[SDC, 30] = math.nan
    motion: Trajectory = log.replace(**{field: broken})
    renderer = BirdsEyeRenderer(road(), size=100)
    with pytest.raises(ValueError, match=r"agents \[0\] .*not finite"):
        renderer.render_motion(motion.slice(20, 31), step=30, controlled=NOBODY)


def test_an_impossible_view_is_refused() -> None:
    scenario = road()
    with pytest.raises(IndexError, match="agent 3 of 3"):
        BirdsEyeRenderer(scenario, follow=3)
    with pytest.raises(ValueError, match="16 pixels"):
        BirdsEyeRenderer(scenario, size=8)
    with pytest.raises(ValueError, match="positive number of metres"):
        BirdsEyeRenderer(scenario, metres=0.0)


def test_an_agent_that_the_log_never_has_cannot_be_followed() -> None:
    scenario = road()
    valid = scenario.log.valid.clone()
    valid[PARKED_CAR] = False
    without = scenario.replace(log=scenario.log.replace(valid=valid))
    with pytest.raises(ValueError, match="never"):
        BirdsEyeRenderer(without, follow=PARKED_CAR)
    no_sdc = scenario.replace(agents=scenario.agents.replace(is_sdc=NOBODY))
    with pytest.raises(ValueError, match="exactly one"):
        BirdsEyeRenderer(no_sdc, follow="sdc")


def test_a_real_scenario_shows_its_sdc_at_every_step() -> None:
    file = shared_path("data/womd_scenario_proto/motion_data_one_scenario.tfrecord")
    scenario = next(iter(read_scenarios(file)))
    renderer = BirdsEyeRenderer(scenario, size=200, metres=20, follow="sdc")
    for step in range(10, 91, 20):
        assert pixel(renderer.render(state_of(scenario, step)), 0, 0, 20) == colors.SDC


@pytest.mark.parametrize("kind", KINDS)
def test_a_synthetic_scenario_shows_its_sdc(kind: str) -> None:
    state = state_of(generate_scenario(1, kind), 10)
    assert pixel(render_state(state, size=200, metres=20, follow="sdc"), 0, 0, 20) == colors.SDC


def modes_of(sdc_ends: list[list[float]], probability: list[float]) -> PredictedModes:
    """Modes of the sdc alone, by their distance from it (m)."""
    start = road().log.at(30).xy[SDC, 0]
    xy = torch.zeros(3, len(probability), 2)
    xy[SDC] = start + torch.tensor(sdc_ends)
    likely = torch.zeros(3, len(probability))
    likely[SDC] = torch.tensor(probability)
    return PredictedModes(xy=xy, probability=likely)


def test_a_likely_mode_is_darker_than_an_unlikely_one() -> None:
    frame = close_up(road(), SDC, modes=modes_of([[0.0, 5.0], [0.0, -5.0]], [0.9, 0.1]))

    likely, unlikely = sum(pixel(frame, 0, 4.5, 16)), sum(pixel(frame, 0, -4.5, 16))
    assert likely < unlikely < sum(colors.ASPHALT)


def test_a_mode_without_probability_and_agents_out_of_view_leave_no_trace() -> None:
    plain = close_up(road(), SDC)

    assert np.array_equal(close_up(road(), SDC, modes=modes_of([[0.0, 5.0]], [0.0])), plain)
    away = modes_of([[0.0, 5.0]], [0.0])
    away.probability[PARKED_CAR] = 1.0
    assert np.array_equal(close_up(road(), SDC, modes=away), plain)


def test_modes_of_another_number_of_agents_are_refused() -> None:
    modes = modes_of([[0.0, 5.0]], [1.0]).map(lambda tensor: tensor[:2])

    with pytest.raises(ValueError, match="wanted modes of 3 agents, got those of 2"):
        close_up(road(), SDC, modes=modes)
