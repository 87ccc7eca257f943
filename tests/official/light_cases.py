"""Cases about traffic lights."""

from typing import Any

import numpy as np

from catk_sim.constants import CURRENT_STEP, NUM_STEPS
from tests.official.drawing import (
    BICYCLE,
    PERSON,
    Case,
    add_agent,
    add_polyline,
    empty_road,
    far_away,
    lose,
    moving,
    remove,
    replay,
    scattered,
)

ARROW_STOP, ARROW_GO, STOP, CAUTION, GO, FLASHING_STOP = 1, 3, 4, 5, 6, 7


def before_a_light(speed: float = 6.0) -> Any:
    """Two cars, a cyclist and a pedestrian on their way to a stop line at x = 0. No light yet."""
    scenario = empty_road()
    for now in scenario.dynamic_map_states:
        now.ClearField("lane_states")
    add_agent(scenario, moving(-10.0, speed), -2.0)
    add_agent(scenario, moving(-25.0, speed), -1.5)
    add_agent(scenario, moving(-12.0, speed / 2), -3.5, size=BICYCLE, kind=3)
    add_agent(scenario, moving(-5.0, 1.0), -3.0, size=PERSON, kind=2)
    return scenario


def show(
    scenario: Any,
    state: int,
    steps: range = range(NUM_STEPS),
    *,
    lane: int = 1,
    stop: tuple[float, float] = (0.0, -2.0),
) -> None:
    """Lets a lane's light show a state at some steps."""
    for step in steps:
        light = scenario.dynamic_map_states[step].lane_states.add(lane=lane, state=state)
        light.stop_point.x, light.stop_point.y = stop


def some_stop_some_do_not(scenario: Any, num_rollouts: int = 8) -> Case:
    """Rollouts at everything from standstill to twice the logged speed."""
    rollouts = replay(scenario, num_rollouts)
    now = {track.id: track.states[CURRENT_STEP].center_x for track in scenario.tracks}
    start = np.array([now[agent_id] for agent_id in rollouts["object_id"].tolist()])[:, None]
    factor = np.linspace(0, 2, num_rollouts)[:, None, None]
    rollouts["x"] = start + factor * (rollouts["x"] - start)
    return Case(scenario, rollouts)


def red_throughout() -> Case:
    scenario = before_a_light()
    show(scenario, STOP)
    return some_stop_some_do_not(scenario)


def nobody_crosses() -> Case:
    scenario = before_a_light(speed=0.5)
    show(scenario, STOP)
    return some_stop_some_do_not(scenario)


def red_when_logged_cars_have_passed() -> Case:
    scenario = before_a_light(speed=12.0)
    show(scenario, GO, range(40))
    show(scenario, STOP, range(40, NUM_STEPS))
    return some_stop_some_do_not(scenario)


def every_state_of_a_light() -> Case:
    """Nine lanes side by side, each with another state, and a car on each."""
    scenario = empty_road()
    remove(scenario, "lane")
    for now in scenario.dynamic_map_states:
        now.ClearField("lane_states")
    for state in range(9):
        y = 4.0 * state
        lane = add_polyline(scenario, "lane", [(-50, y), (0, y), (50, y)])
        show(scenario, state, lane=lane, stop=(0.0, y))
        add_agent(scenario, moving(-8.0 - state, 5.0), y)
    return some_stop_some_do_not(scenario)


def a_light_that_changes_all_the_time() -> Case:
    scenario = before_a_light()
    for step in range(NUM_STEPS):
        show(
            scenario,
            (STOP, GO, ARROW_STOP, CAUTION, FLASHING_STOP)[step % 5],
            range(step, step + 1),
        )
    return some_stop_some_do_not(scenario, 32)


def crossing_at_the_first_simulated_step() -> Case:
    scenario = before_a_light()
    add_agent(scenario, moving(-0.3, 5.0), -2.0)
    add_agent(scenario, moving(-0.7, 5.0), -2.0)
    show(scenario, STOP)
    return some_stop_some_do_not(scenario)


def waiting_on_the_very_line() -> Case:
    """At the stop point itself one is neither before nor behind it."""
    scenario = before_a_light()
    for now in ((-1.0, 0.0, 1.0), (-1.0, -0.5, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, -1.0)):
        add_agent(scenario, np.resize(np.repeat(now, 4), NUM_STEPS), -2.0)
    show(scenario, STOP)
    return Case(scenario, replay(scenario))


def a_light_that_is_absent_at_times() -> Case:
    scenario = before_a_light()
    show(scenario, STOP, range(0, NUM_STEPS, 3))
    show(scenario, STOP, range(1, NUM_STEPS, 3))
    return some_stop_some_do_not(scenario, 16)


def a_light_that_is_seen_late() -> Case:
    scenario = before_a_light()
    show(scenario, STOP, range(60, NUM_STEPS))
    return some_stop_some_do_not(scenario)


def a_light_seen_in_the_history_only() -> Case:
    scenario = before_a_light()
    show(scenario, STOP, range(5))
    return some_stop_some_do_not(scenario)


def two_rows_of_a_lane_first_red() -> Case:
    scenario = before_a_light()
    show(scenario, STOP)
    show(scenario, GO)
    return some_stop_some_do_not(scenario)


def two_rows_of_a_lane_last_red() -> Case:
    scenario = before_a_light()
    show(scenario, GO)
    show(scenario, STOP)
    return some_stop_some_do_not(scenario)


def two_rows_of_a_lane_with_two_stop_points() -> Case:
    scenario = before_a_light()
    show(scenario, STOP, stop=(-5.0, -2.0))
    show(scenario, STOP, stop=(15.0, -2.0))
    return some_stop_some_do_not(scenario, 16)


def two_rows_of_a_lane_at_some_steps() -> Case:
    scenario = before_a_light()
    show(scenario, GO, range(0, NUM_STEPS, 2))
    show(scenario, STOP)
    return some_stop_some_do_not(scenario, 16)


def two_rows_of_a_lane_in_changing_order() -> Case:
    scenario = before_a_light()
    for step in range(NUM_STEPS):
        for state in ((GO, STOP), (STOP, GO), (STOP, GO, STOP))[step % 3]:
            show(scenario, state, range(step, step + 1), stop=(float(step % 2), -2.0))
    return some_stop_some_do_not(scenario, 32)


def a_stop_point_that_moves() -> Case:
    scenario = before_a_light()
    for step in range(NUM_STEPS):
        show(scenario, STOP, range(step, step + 1), stop=(0.4 * step - 20, -2.0))
    return some_stop_some_do_not(scenario, 16)


def a_stop_point_beside_the_lane() -> Case:
    scenario = before_a_light()
    show(scenario, STOP, stop=(-3.3, 9.0))
    return some_stop_some_do_not(scenario)


def lights_of_two_lanes() -> Case:
    """Agents change from one to the other, each with its own stop line."""
    scenario = before_a_light()
    show(scenario, STOP, stop=(0.0, -2.0))
    show(scenario, ARROW_STOP, lane=2, stop=(-6.0, 2.0))
    rollouts = some_stop_some_do_not(scenario, 16).rollouts
    rollouts["y"] += 2 * np.sin(np.arange(rollouts["y"].shape[-1]) / 5)
    return Case(scenario, rollouts)


def scattered_around_a_junction() -> Case:
    """Lanes of several lengths that cross, far from and near to the origin."""
    scenario = before_a_light()
    remove(scenario, "lane")
    for now in scenario.dynamic_map_states:
        now.ClearField("lane_states")
    lanes = [
        [(-40, -2), (-10, -2), (-1, -2), (0, -2), (10, -2), (40, -2)],
        [(5, -40), (5, -6), (5, 40)],
        [(-10, -2), (0, 0), (3, 6), (5, 12)],
        [(30, 20), (12, 10)],
        [(-15, 15), (-15, 15), (-5, 15)],
        [(7, 7)],
    ]
    for points in lanes:
        lane = add_polyline(scenario, "lane", points)
        show(scenario, STOP, lane=lane, stop=points[len(points) // 2])
    return Case(scenario, scattered(replay(scenario, 16), (-20, 20), (-20, 20), grid=0.5))


def scattered_around_a_junction_far_away() -> Case:
    return far_away(scattered_around_a_junction())


def lost_before_a_red_light() -> Case:
    """In the gaps the file has zeros, which is beyond the stop line."""
    scenario = before_a_light()
    show(scenario, STOP, stop=(-3.0, -2.0))
    lose(scenario.tracks[0], 14, 15, 17, *range(40, NUM_STEPS))
    lose(scenario.tracks[1], 13, 30, 31)
    return some_stop_some_do_not(scenario)


def no_lanes() -> Case:
    scenario = before_a_light()
    show(scenario, STOP)
    remove(scenario, "lane")
    return some_stop_some_do_not(scenario)


def lanes_of_other_types_only() -> Case:
    scenario = before_a_light()
    show(scenario, STOP)
    for feature in scenario.map_features:
        if feature.HasField("lane"):
            feature.lane.type = 1
    return some_stop_some_do_not(scenario)


def a_light_of_a_freeway() -> Case:
    scenario = before_a_light()
    show(scenario, STOP)
    show(scenario, STOP, lane=2, stop=(0.0, 2.0))
    for feature in scenario.map_features:
        if feature.id == 1:
            feature.lane.type = 1
    return some_stop_some_do_not(scenario)


def a_light_of_a_lane_that_is_not_there() -> Case:
    scenario = before_a_light()
    show(scenario, STOP, lane=77)
    show(scenario, STOP)
    return some_stop_some_do_not(scenario)


def only_lights_of_lanes_that_are_not_there() -> Case:
    scenario = before_a_light()
    show(scenario, STOP, lane=77)
    return some_stop_some_do_not(scenario)


def no_lights() -> Case:
    return some_stop_some_do_not(before_a_light())


def no_states_of_lights_at_all() -> Case:
    scenario = before_a_light()
    del scenario.dynamic_map_states[:]
    return some_stop_some_do_not(scenario)


def pedestrians_and_cyclists_cross() -> Case:
    scenario = before_a_light()
    for track, kind in zip(scenario.tracks, (2, 3, 3, 2), strict=True):
        track.object_type = kind
    show(scenario, STOP)
    return some_stop_some_do_not(scenario)
