from dataclasses import replace

import numpy as np
import pytest

from catk_sim.constants import CURRENT_STEP, NUM_STEPS
from catk_sim.datasets.errors import DataError
from catk_sim.datasets.recording import (
    LINK_COLUMNS,
    RecordedAgents,
    RecordedLights,
    RecordedMap,
    Recording,
)
from catk_sim.datasets.windows import (
    CHOSEN,
    INTERPOLATED,
    choose_to_predict,
    cut_window,
    cut_windows,
    join_phrases,
)


def recording(num_steps: int, *, num_agents: int = 2, seconds: float = 0.1) -> Recording:
    """Agent k (id 10 + k) drives at k m/s along the y axis; the sdc is agent 0.

    The light of lane 5 is observed at every step, in a state that counts the steps modulo 9.
    """
    times = seconds * np.arange(num_steps)
    states = np.zeros((num_agents, num_steps, 9))
    states[..., 1] = np.arange(num_agents)[:, None] * times
    states[..., 8] = np.arange(num_agents)[:, None]
    return Recording(
        scenario_id="log",
        lacks="lane graph",
        timestamps=100.0 + times,
        agents=RecordedAgents(
            agent_id=np.arange(10, 10 + num_agents),
            type=np.ones(num_agents, np.int64),
            states=states,
            valid=np.ones((num_agents, num_steps), bool),
            sdc=0,
            to_predict={1: 2},
            of_interest=[11],
        ),
        roadgraph=RecordedMap(
            feature_id=np.zeros(0, np.int64),
            feature_type=np.zeros(0, np.int64),
            speed_limit=np.zeros(0),
            interpolating=np.zeros(0, bool),
            num_points=np.zeros(0, np.int64),
            xyz=np.zeros((0, 3)),
            links=np.zeros((0, LINK_COLUMNS), np.int64),
        ),
        lights=RecordedLights(
            step=np.arange(num_steps),
            lane_id=np.full(num_steps, 5),
            state=np.arange(num_steps) % 9,
            stop_xyz=np.zeros((num_steps, 3)),
        ),
    )


def edit(log: Recording, **changes: object) -> Recording:
    return replace(log, agents=replace(log.agents, **changes))


def test_windows_share_no_step_and_the_rest_is_dropped() -> None:
    log = recording(2 * NUM_STEPS + 17)
    first, second = cut_windows(log, "")
    assert (first.scenario_id, second.scenario_id) == ("log-0", "log-91")
    for window, start in ((first, 0), (second, NUM_STEPS)):
        expected = log.agents.states[:, start : start + NUM_STEPS]
        np.testing.assert_array_equal(window.agents.states, expected)
        np.testing.assert_allclose(window.timestamps, 0.1 * np.arange(NUM_STEPS), atol=1e-9)
        assert window.lights.step.tolist() == list(range(NUM_STEPS))
        assert window.lights.state.tolist() == [(start + step) % 9 for step in range(NUM_STEPS)]
        assert window.agents.to_predict == {1: 2}
        assert window.lacks == "lane graph"


def test_a_log_of_one_window_keeps_its_name() -> None:
    [window] = cut_windows(recording(NUM_STEPS), "")
    assert window.scenario_id == "log"


@pytest.mark.parametrize("num_steps", [0, 1, 2, NUM_STEPS - 1])
def test_a_log_that_is_too_short_is_an_error(num_steps: int) -> None:
    with pytest.raises(DataError, match=r"^file: wanted (at least 91 steps|timestamps)"):
        cut_windows(recording(num_steps), "file")


@pytest.mark.parametrize("odd", [99.0, np.nan, np.inf])
def test_time_that_does_not_rise_is_an_error(odd: float) -> None:
    log = recording(NUM_STEPS)
    log.timestamps[5] = odd
    with pytest.raises(DataError, match=r"^file: wanted (timestamps that rise|steps at most)"):
        cut_windows(log, "file")


def test_agents_that_a_window_never_sees_are_left_out() -> None:
    log = recording(2 * NUM_STEPS, num_agents=4)
    valid = log.agents.valid.copy()
    valid[0] = False  # The sdc stays though nobody sees it.
    valid[1, NUM_STEPS:] = False
    valid[3, :NUM_STEPS] = False
    log = edit(log, valid=valid, to_predict={1: 1, 3: 2}, of_interest=[11, 13])
    first, second = cut_windows(log, "")
    assert first.agents.agent_id.tolist() == [10, 11, 12]
    assert (first.agents.to_predict, first.agents.of_interest) == ({1: 1}, [11])
    assert second.agents.agent_id.tolist() == [10, 12, 13]
    assert (second.agents.to_predict, second.agents.of_interest) == ({2: 2}, [13])
    assert (first.agents.sdc, second.agents.sdc) == (0, 0)


def test_the_index_of_the_sdc_moves_with_it() -> None:
    log = recording(NUM_STEPS, num_agents=3)
    valid = log.agents.valid.copy()
    valid[0] = False
    window = cut_window(edit(log, valid=valid, sdc=2, to_predict={}), 0)
    assert window.agents.agent_id[window.agents.sdc] == 12


def test_an_agent_to_predict_is_present_at_the_current_step() -> None:
    log = recording(NUM_STEPS, num_agents=3)
    valid = log.agents.valid.copy()
    valid[1, CURRENT_STEP] = False
    window = cut_window(edit(log, valid=valid, to_predict={1: 0, 2: 1}), 0)
    assert window.agents.to_predict == {2: 1}


def test_where_nobody_is_to_be_predicted_some_are_chosen_and_that_is_said() -> None:
    [window] = cut_windows(edit(recording(NUM_STEPS), to_predict={}), "")
    assert window.agents.to_predict == {1: 0}
    assert window.lacks == f"{CHOSEN}, lane graph"


def test_those_that_get_farthest_are_chosen() -> None:
    agents = recording(NUM_STEPS, num_agents=14).agents
    valid = agents.valid.copy()
    valid[13, -1] = valid[12, CURRENT_STEP] = False
    kind = agents.type.copy()
    kind[11], kind[10], kind[9] = 4, 2, 3  # Another thing, a pedestrian and a cyclist.
    chosen = choose_to_predict(replace(agents, valid=valid, type=kind, sdc=8))
    assert chosen == dict.fromkeys([2, 3, 4, 5, 6, 7, 9, 10], 0)


def test_where_nobody_is_may_be_infinitely_far() -> None:
    agents = recording(NUM_STEPS, num_agents=3).agents
    valid, states = agents.valid.copy(), agents.states.copy()
    valid[1, -1] = False
    states[1, [CURRENT_STEP, -1]] = np.inf
    assert choose_to_predict(replace(agents, valid=valid, states=states, sdc=0)) == {2: 0}


def test_the_rate_of_a_log_may_vary_a_little() -> None:
    log = recording(NUM_STEPS, seconds=0.1002)
    log.timestamps[50] += 0.005
    [window] = cut_windows(log, "")
    np.testing.assert_array_equal(window.agents.states, log.agents.states)
    np.testing.assert_allclose(window.timestamps, log.timestamps - 100.0)
    assert INTERPOLATED not in window.lacks


@pytest.mark.parametrize("seconds", [0.05, 0.5, 0.07])
def test_other_rates_are_interpolated(seconds: float) -> None:
    [window] = cut_windows(recording(1 + round(9.05 / seconds), seconds=seconds), "")
    times = 0.1 * np.arange(NUM_STEPS)
    np.testing.assert_allclose(window.timestamps, times, atol=1e-9)
    np.testing.assert_allclose(window.agents.states[1, :, 1], times, atol=1e-9)
    np.testing.assert_allclose(window.agents.states[1, :, 8], 1.0)
    assert window.agents.valid.all()
    assert window.lacks == f"lane graph, {INTERPOLATED}"
    # A light is as it was at the step before.
    before = np.floor(times / seconds + 1e-6).astype(int)
    assert window.lights.step.tolist() == list(range(NUM_STEPS))
    assert window.lights.state.tolist() == (before % 9).tolist()


def test_headings_turn_along_the_shorter_arc() -> None:
    log = recording(20, seconds=0.5)
    log.agents.states[1, :, 6] = np.where(np.arange(20) % 2, np.pi - 0.1, -np.pi + 0.1)
    [window] = cut_windows(log, "")
    away = np.abs(np.angle(np.exp(1j * (window.agents.states[1, :, 6] - np.pi))))
    assert away.max() < 0.1 + 1e-9
    assert away[2] == pytest.approx(0.02)


def test_an_agent_is_present_between_steps_where_it_is_at_both() -> None:
    log = recording(20, seconds=0.5)
    log.agents.valid[1, 4] = False
    log.agents.states[1, 4] = 1e6
    [window] = cut_windows(log, "")
    absent = np.flatnonzero(~window.agents.valid[1]).tolist()
    assert absent == list(range(16, 25))
    present = window.agents.states[1][window.agents.valid[1]]
    assert np.abs(present).max() < 10


def test_what_is_not_finite_is_left_to_the_checks() -> None:
    log = recording(20, seconds=0.5)
    log.agents.states[1, 4, 0], log.agents.states[1, 5, 6] = np.inf, np.nan
    [window] = cut_windows(log, "")
    assert not np.isfinite(window.agents.states[1, 20:26, [0, 6]]).all(axis=0).any()


def test_nothing_is_interpolated_over_a_long_gap() -> None:
    log = recording(200, seconds=0.05)
    log.timestamps[100:] += 5.0
    with pytest.raises(DataError, match=r"wanted steps at most 1.0 s apart, got 5\.0"):
        cut_windows(log, "")


def test_phrases_are_joined_once_and_in_order() -> None:
    assert join_phrases(["b", "", "c, a", "b"]) == "a, b, c"
    assert join_phrases([]) == ""
