"""Longer recordings, or of another rate, as windows of WOMD's length and rate."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from catk_sim.constants import CURRENT_STEP, NUM_STEPS, STEP_SECONDS
from catk_sim.datasets.errors import DataError
from catk_sim.datasets.recording import RecordedAgents, RecordedLights, Recording
from catk_sim.datatypes import AgentType

MAX_TO_PREDICT = 8
"""WOMD has at most so many agents to predict in a scenario."""

MAX_GAP_SECONDS = 1.0
"""Between steps that are further apart nothing is interpolated."""

CHOSEN = f"agents to predict (chosen: at most {MAX_TO_PREDICT} that get farthest)"
INTERPOLATED = "states every 0.1 s (interpolated)"

_RATE_TOLERANCE = 0.1
_HEADING = 6


def cut_windows(recording: Recording, source: str) -> list[Recording]:
    """Cuts a recording into windows of 91 steps, 0.1 s apart, that share no step.

    The current step of each is its 11th; what is left at the end is dropped. Where the recording
    is longer than a window, a window's id ends in the step that it begins at, such as "-91".
    Agents that a window never sees are left out of it. A window without agents to predict gets
    some: see `choose_to_predict`.

    Args:
        recording: Steps at any rate. What differs from 10 Hz by more than a tenth is interpolated
            linearly between the steps before and after, where the agent is present at both;
            headings along the shorter arc. A light is as it was at the step before.
        source: The file, for errors.

    Raises:
        DataError: If the recording is too short, or its time does not rise.
    """
    recording = _at_ten_hertz(recording, source)
    num_steps = len(recording.timestamps)
    if num_steps < NUM_STEPS:
        raise DataError(f"wanted at least {NUM_STEPS} steps, got {num_steps}", source)
    starts = range(0, num_steps - NUM_STEPS + 1, NUM_STEPS)
    windows = [cut_window(recording, start) for start in starts]
    if num_steps == NUM_STEPS:
        return windows
    return [
        replace(window, scenario_id=f"{window.scenario_id}-{start}")
        for window, start in zip(windows, starts, strict=True)
    ]


def cut_window(recording: Recording, start: int) -> Recording:
    """Takes 91 steps of a recording at 10 Hz. See `cut_windows`."""
    stop = start + NUM_STEPS
    agents = _take_agents(recording.agents, start, stop)
    lights = recording.lights
    inside = (lights.step >= start) & (lights.step < stop)
    times = recording.timestamps[start:stop]
    window = replace(
        recording,
        timestamps=times - times[0],
        agents=agents,
        lights=RecordedLights(
            step=lights.step[inside] - start,
            lane_id=lights.lane_id[inside],
            state=lights.state[inside],
            stop_xyz=lights.stop_xyz[inside],
        ),
    )
    if agents.to_predict:
        return window
    chosen = choose_to_predict(agents)
    return replace(
        window,
        agents=replace(agents, to_predict=chosen),
        lacks=join_phrases([recording.lacks, CHOSEN]),
    )


def choose_to_predict(agents: RecordedAgents) -> dict[int, int]:
    """Chooses agents to predict, where the source has chosen none.

    They are the road users, save the sdc, that are present at the current and at the last step and
    get farthest between them; at most as many as WOMD has.

    Returns:
        Their indices in order, each with difficulty 0, which is WOMD's for "not set".
    """
    roles = (AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.CYCLIST)
    present = agents.valid[:, [CURRENT_STEP, -1]].all(axis=1)
    able = np.logical_and(np.isin(agents.type, roles), present)
    able &= np.arange(len(able)) != agents.sdc
    # What is not finite is refused later, or nobody is there.
    with np.errstate(over="ignore", invalid="ignore"):
        moved = agents.states[:, -1, :2] - agents.states[:, CURRENT_STEP, :2]
        distance = np.where(able, np.linalg.norm(moved, axis=-1), -1.0)
    farthest = np.argsort(-distance, kind="stable")[:MAX_TO_PREDICT]
    return {int(index): 0 for index in np.sort(farthest) if able[index]}


def join_phrases(phrases: list[str]) -> str:
    """Joins phrases, some joined already, in alphabetical order. See `Scenario.lacks`."""
    return ", ".join(sorted({one for phrase in phrases for one in phrase.split(", ") if one}))


def _take_agents(agents: RecordedAgents, start: int, stop: int) -> RecordedAgents:
    valid = agents.valid[:, start:stop]
    kept = np.logical_or(valid.any(axis=1), np.arange(len(valid)) == agents.sdc)
    index = np.cumsum(kept) - 1
    return RecordedAgents(
        agent_id=agents.agent_id[kept],
        type=agents.type[kept],
        states=agents.states[kept, start:stop],
        valid=valid[kept],
        sdc=int(index[agents.sdc]),
        to_predict={
            int(index[agent]): difficulty
            for agent, difficulty in agents.to_predict.items()
            if kept[agent] and valid[agent, CURRENT_STEP]
        },
        of_interest=[one for one in agents.of_interest if one in agents.agent_id[kept]],
    )


def _at_ten_hertz(recording: Recording, source: str) -> Recording:
    times = recording.timestamps
    with np.errstate(invalid="ignore", over="ignore"):
        gaps = np.diff(times)
    if len(times) < 2 or not (gaps > 0).all():
        raise DataError("wanted timestamps that rise", source)
    if (np.abs(gaps - STEP_SECONDS) <= _RATE_TOLERANCE * STEP_SECONDS).all():
        return recording
    if not (gaps <= MAX_GAP_SECONDS).all():
        raise DataError(
            f"wanted steps at most {MAX_GAP_SECONDS} s apart, got {gaps.max()} s", source
        )
    wanted = STEP_SECONDS * np.arange(int((times[-1] - times[0]) / STEP_SECONDS + 1e-6) + 1)
    before = np.clip(np.searchsorted(times, times[0] + wanted + 1e-6) - 1, 0, len(times) - 2)
    share = np.clip((times[0] + wanted - times[before]) / gaps[before], 0.0, 1.0)
    with np.errstate(invalid="ignore", over="ignore"):  # Whether all is finite is checked later.
        states, valid = _interpolate(recording.agents, before, share)
    return replace(
        recording,
        timestamps=wanted,
        agents=replace(recording.agents, states=states, valid=valid),
        lights=_hold(recording.lights, before + (share >= 1.0)),
        lacks=join_phrases([recording.lacks, INTERPOLATED]),
    )


def _interpolate(
    agents: RecordedAgents, before: Int[ndarray, " wanted"], share: Float[ndarray, " wanted"]
) -> tuple[Float[ndarray, "agents wanted 9"], Bool[ndarray, "agents wanted"]]:
    first, second = agents.states[:, before], agents.states[:, before + 1]
    change = second - first
    turn = change[..., _HEADING]
    change[..., _HEADING] = np.arctan2(np.sin(turn), np.cos(turn))
    # At a step of the source the other neighbour has no say.
    needs_first, needs_second = share < 1.0, share > 0.0
    valid = (agents.valid[:, before] | ~needs_first) & (agents.valid[:, before + 1] | ~needs_second)
    mixed = first + share[:, None] * change
    mixed = np.where(needs_first[:, None], mixed, second)
    return np.where(needs_second[:, None], mixed, first), valid


def _hold(lights: RecordedLights, steps: Int[ndarray, " wanted"]) -> RecordedLights:
    """Repeats what was observed at steps of the source."""
    start, stop = (np.searchsorted(lights.step, steps, side=side) for side in ("left", "right"))
    rows = np.concatenate(
        [np.zeros(0, np.int64), *(np.arange(*span) for span in zip(start, stop, strict=True))]
    )
    return RecordedLights(
        step=np.arange(len(steps)).repeat(stop - start),
        lane_id=lights.lane_id[rows],
        state=lights.state[rows],
        stop_xyz=lights.stop_xyz[rows],
    )
