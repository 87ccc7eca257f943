"""Cases about agents: how they move, how they meet and which of them count."""

import math
from typing import Any

import numpy as np

from catk_sim.constants import CURRENT_STEP, NUM_STEPS
from tests.official.drawing import (
    BICYCLE,
    CAR,
    PERSON,
    POINT,
    TRUCK,
    Case,
    add_agent,
    driven,
    empty_road,
    far_away,
    lose,
    moving,
    noisy,
    replay,
    scattered,
    straight_road,
)


def ordinary() -> Case:
    scenario = straight_road()
    return Case(scenario, noisy(replay(scenario, 32)))


def one_rollout() -> Case:
    scenario = straight_road()
    return Case(scenario, noisy(replay(scenario, 1)))


def forty_rollouts() -> Case:
    scenario = traffic()
    return Case(scenario, driven(scenario, num_rollouts=40))


def everyone_stands_still() -> Case:
    scenario = empty_road()
    for place in (-20.0, -15.0, 0.0):
        add_agent(scenario, place, -2.0)
    add_agent(scenario, 3.0, 6.0, size=PERSON, kind=2)
    return Case(scenario, replay(scenario))


def cars_that_touch() -> Case:
    """Every pair at whole and half metres, at right angles: many touch, many coincide."""
    scenario = empty_road()
    for place in (-6.0, 0.0, 6.0):
        add_agent(scenario, place, 0.0, size=(4.0, 2.0, 1.5))
    add_agent(scenario, 0.0, 3.0, size=(1.0, 1.0, 1.8), kind=2)
    rollouts = replay(scenario, 8)
    return Case(scenario, scattered(rollouts, (-4, 4), (-3, 3), grid=0.5, right_angles=True))


def bodies_that_overlap() -> Case:
    """Sizes from a pedestrian's to a truck's, anywhere in a few metres."""
    return _crowded((-8, 8), (-4, 4))


def bodies_that_overlap_far_away() -> Case:
    return far_away(bodies_that_overlap())


def cars_that_touch_far_away() -> Case:
    return far_away(cars_that_touch())


def bodies_that_pass() -> Case:
    return _crowded((-60, 60), (-6, 6))


def _crowded(x: tuple[float, float], y: tuple[float, float]) -> Case:
    scenario = empty_road()
    sizes = [(CAR, 1), (TRUCK, 1), (PERSON, 2), (BICYCLE, 3), ((9.0, 0.4, 2.0), 4)]
    for index, (size, kind) in enumerate(sizes):
        add_agent(scenario, moving(5.0 * index, 1.0 + index), -2.0, size=size, kind=kind)
    return Case(scenario, scattered(replay(scenario, 8), x, y))


def one_inside_another() -> Case:
    scenario = empty_road()
    add_agent(scenario, 0.0, 0.0, size=TRUCK)
    add_agent(scenario, 1.0, 0.5, size=PERSON, kind=2)
    add_agent(scenario, 0.0, 0.0, size=TRUCK)  # The same box.
    rollouts = replay(scenario)
    rollouts["heading"][1:] += np.linspace(0, 7, rollouts["x"].shape[-1])
    return Case(scenario, rollouts)


def bodies_without_length_or_width() -> Case:
    scenario = empty_road()
    for index, size in enumerate([CAR, POINT, (4.0, 0.0, 1.5), (0.0, 2.0, 1.5), CAR]):
        add_agent(scenario, 2.0 * index, 0.0, size=size)
    return Case(scenario, scattered(replay(scenario), (-4, 4), (-4, 4)))


def traffic() -> Any:
    """A sdc, cars, a cyclist and a pedestrian on the straight road, each with its own speed."""
    scenario = empty_road()
    add_agent(scenario, moving(-30.0, 8.0), -2.0)
    add_agent(scenario, moving(-15.0, 6.0, -0.5), -2.2)
    add_agent(scenario, moving(30.0, -9.0), 2.0, math.pi)
    add_agent(scenario, moving(-10.0, 4.0), -3.5, size=BICYCLE, kind=3)
    add_agent(scenario, moving(0.0, 0.0), moving(-8.0, 1.2), 1.57, size=PERSON, kind=2)
    add_agent(scenario, 40.0, -3.0, evaluated=False)
    return scenario


def gaps_of_one_step_in_the_log() -> Case:
    scenario = traffic()
    for track, steps in zip(
        scenario.tracks,
        [(9, 30), (11, 50), (12, 89), (90,), (0, 5, 9, 11), (20, 40, 60)],
        strict=True,
    ):
        lose(track, *steps)
    return Case(scenario, noisy(replay(scenario)))


def gaps_at_every_other_step() -> Case:
    scenario = traffic()
    lose(scenario.tracks[0], *range(11, NUM_STEPS, 2))
    lose(scenario.tracks[1], *range(12, NUM_STEPS, 2))
    lose(scenario.tracks[2], *range(11, NUM_STEPS, 3), *range(12, NUM_STEPS, 3))
    return Case(scenario, noisy(replay(scenario)))


def gaps_of_those_at_the_origin() -> Case:
    """The file has zeros in a gap: a box without size in the way of whom drives over the origin."""
    scenario = empty_road()
    add_agent(scenario, moving(-40.0, 9.0), 0.0)
    add_agent(scenario, moving(-25.0, 5.0), 0.0)
    add_agent(scenario, moving(30.0, 5.0), 0.0, evaluated=False)
    lose(scenario.tracks[1], *range(20, 24), 40, *range(60, NUM_STEPS))
    lose(scenario.tracks[2], *range(30, 50), 55, 57)
    return Case(scenario, noisy(replay(scenario)))


def logged_at_the_current_step_only() -> Case:
    scenario = traffic()
    for track in scenario.tracks[1:4]:
        lose(track, *range(CURRENT_STEP), *range(CURRENT_STEP + 1, NUM_STEPS))
    return Case(scenario, noisy(replay(scenario)))


def no_log_of_the_future() -> Case:
    scenario = traffic()
    for track in scenario.tracks:
        lose(track, *range(CURRENT_STEP + 1, NUM_STEPS))
    return Case(scenario, noisy(replay(scenario)))


def leaving_and_entering() -> Case:
    scenario = traffic()
    lose(scenario.tracks[0], *range(30, NUM_STEPS))
    lose(scenario.tracks[1], *range(8))
    lose(scenario.tracks[4], *range(13, 70))
    add_agent(scenario, 0.0, -2.0, evaluated=False)  # Not there at the current step.
    lose(scenario.tracks[-1], *range(CURRENT_STEP + 1))
    return Case(scenario, noisy(replay(scenario)))


def turning_round() -> Case:
    """U-turns in the log and in the rollouts; headings wound up or cut at half a turn."""
    scenario = empty_road()
    angle = 0.05 * np.arange(NUM_STEPS)
    x, y = 10 * np.sin(angle), 10 - 10 * np.cos(angle)
    add_agent(scenario, x, y, angle)
    add_agent(scenario, x + 30, y, np.mod(angle + math.pi, 2 * math.pi) - math.pi)
    add_agent(scenario, -x, -y, angle + math.pi)
    rollouts = replay(scenario)
    rollouts["heading"][1] = np.mod(rollouts["heading"][1] + math.pi, 2 * math.pi) - math.pi
    rollouts["heading"][2] *= -1.5
    rollouts["heading"][3] += np.linspace(0, 40, rollouts["x"].shape[-1])
    return Case(scenario, noisy(rollouts, metres=0.01))


def half_turns_in_one_step() -> Case:
    scenario = traffic()
    rollouts = replay(scenario)
    flipped = np.arange(rollouts["x"].shape[-1]) % 3 == 0
    rollouts["heading"][..., flipped] += math.pi
    rollouts["heading"][1, ..., flipped] -= 2 * math.pi
    return Case(scenario, rollouts)


def headings_beyond_a_turn() -> Case:
    """Each follows the next, whose heading is some whole turns off."""
    scenario = empty_road()
    for index in range(5):
        turns = 2 * math.pi * [0, 0, 1, -2, 1][index]
        add_agent(scenario, moving(-40 + 9.0 * index, 8.0 - index), -2.0, turns)
    rollouts = replay(scenario)
    rollouts["heading"][1] -= 2 * math.pi
    rollouts["heading"][2, 1:3] += 2 * math.pi
    return Case(scenario, rollouts)


def following() -> Case:
    """Whom one follows: beside, askew, faster, at the very angles where following ends."""
    scenario = empty_road()
    for index in range(5):
        add_agent(scenario, moving(-60 + 12.0 * index, 9.0 - 1.5 * index), 0.0)
    rollouts = replay(scenario, 32)
    rng = np.random.default_rng(0)
    shape = rollouts["x"].shape
    rollouts["y"] += rng.uniform(-2.5, 2.5, shape)
    rollouts["heading"] += rng.uniform(-1.5, 1.5, shape)
    rollouts["heading"][16:] = rng.choice(
        [0.0, math.radians(10), math.radians(-10), math.radians(75)], shape
    )[16:]
    rollouts["y"][24:] = 0.5 * np.round(rollouts["y"][24:] / 0.5)
    return Case(scenario, rollouts)


def jumps_of_kilometres() -> Case:
    scenario = traffic()
    return Case(scenario, scattered(replay(scenario), (-20000, 20000), (-20000, 20000)))


def speeds_at_the_edges_of_bins() -> Case:
    """2.5 m/s, 5 m/s and so on, and speeds that never change."""
    scenario = empty_road()
    for index in range(6):
        add_agent(scenario, moving(0.0, 2.5 * index), 3.0 * index - 8)
    rollouts = replay(scenario, 8)
    time = 0.1 * np.arange(1, rollouts["x"].shape[-1] + 1)
    rollouts["x"] = 2.5 * np.arange(8)[:, None, None] * time + 0 * rollouts["x"]
    rollouts["z"] = 0.25 * np.round(np.arange(8)[:, None, None] * time) + 0 * rollouts["z"]
    return Case(scenario, rollouts)


def one_evaluated_agent() -> Case:
    scenario = traffic()
    del scenario.tracks_to_predict[:]
    return Case(scenario, driven(scenario))


def evaluated_agents_named_twice() -> Case:
    scenario = traffic()
    del scenario.tracks_to_predict[:]
    for index in (3, 0, 3, 1):
        scenario.tracks_to_predict.add(track_index=index)
    return Case(scenario, driven(scenario))


def no_vehicle_is_evaluated() -> Case:
    scenario = traffic()
    for track, kind in zip(scenario.tracks, (2, 3, 2, 3, 2, 1), strict=True):
        track.object_type = kind
    return Case(scenario, driven(scenario))


def agents_of_no_type() -> Case:
    scenario = traffic()
    scenario.tracks[1].object_type = 0
    scenario.tracks[2].object_type = 4
    return Case(scenario, driven(scenario))


def alone() -> Case:
    scenario = empty_road()
    add_agent(scenario, moving(-30.0, 10.0), -2.0)
    return Case(scenario, noisy(replay(scenario)))


def ids_in_no_order() -> Case:
    scenario = traffic()
    for track, agent_id in zip(scenario.tracks, (70, 3, 2000, 9, 41, 1), strict=True):
        track.id = agent_id
    scenario.sdc_track_index = 2
    rollouts = driven(scenario)
    order = [4, 2, 0, 5, 1, 3]
    shuffled = {name: rollouts[name][:, order] for name in ("x", "y", "z", "heading")}
    return Case(scenario, {"object_id": rollouts["object_id"][order], **shuffled})


def sizes_that_change() -> Case:
    scenario = traffic()
    for index, track in enumerate(scenario.tracks):
        for step, state in enumerate(track.states):
            state.length += 0.02 * step
            state.width += 0.01 * index * (step % 3)
            state.height += 0.01 * step
    return Case(scenario, noisy(replay(scenario)))


def a_crowd_of_128() -> Case:
    scenario = empty_road()
    rng = np.random.default_rng(0)
    for index in range(128):
        kind = int(rng.choice([1, 1, 1, 2, 3]))
        size = {1: CAR, 2: PERSON, 3: BICYCLE}[kind]
        place, lane = rng.uniform(-90, 90), float(rng.choice([-2.0, 2.0]))
        track = add_agent(
            scenario,
            moving(place, lane * rng.uniform(-4, 0)),
            lane + rng.uniform(-1, 1),
            0.0 if lane < 0 else math.pi,
            size=size,
            kind=kind,
            evaluated=index < 8,
        )
        lose(track, *(11 + np.flatnonzero(rng.random(80) < 0.05)).tolist())
    return Case(scenario, driven(scenario, num_rollouts=32))


def an_evaluated_agent_is_absent_now() -> Case:
    scenario = traffic()
    lose(scenario.tracks[1], CURRENT_STEP)
    return Case(scenario, noisy(replay(scenario)))


def the_sdc_is_absent_now() -> Case:
    scenario = traffic()
    lose(scenario.tracks[0], CURRENT_STEP)
    return Case(scenario, noisy(replay(scenario)))
