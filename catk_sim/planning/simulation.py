"""Closed loop: somebody drives the ego, among traffic that may react."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from catk_sim.constants import FUTURE_STEPS
from catk_sim.datasets.batching import collate
from catk_sim.datatypes import Action, AgentType, Rollout, Scenario, SimState, Trajectory
from catk_sim.dynamics import StateDynamics
from catk_sim.envs.background import Background
from catk_sim.planning.calls import Problem
from catk_sim.planning.drivers import EgoDriver
from catk_sim.planning.observing import ego_history
from catk_sim.planning.route import ego_index
from catk_sim.planning.tracking import EgoState, brake
from catk_sim.rollout import Policy, sim_agents, without_late_agents
from catk_sim.simulator import Simulator

BRAKING = 4.0
"""How an ego brakes whose planner has failed (m/s^2)."""


@dataclass(frozen=True, kw_only=True)
class TrafficGroup:
    """Agents that a policy drives: those of some types, the ego aside.

    Attributes:
        policy: Who drives them.
        types: The types.
    """

    policy: Policy[Any]
    types: frozenset[AgentType] = frozenset(AgentType)

    def members(self, scenario: Scenario) -> Bool[Tensor, "*batch agents"]:
        """Tells which agents belong to the group."""
        kind = scenario.agents.type
        types = torch.tensor(sorted(self.types), dtype=kind.dtype, device=kind.device)
        return torch.isin(kind, types) & scenario.agents.valid & ~scenario.agents.is_sdc


@dataclass(frozen=True, kw_only=True)
class Failure:
    """That a planner did not drive a scenario to its end.

    Attributes:
        scenario_id: The scenario.
        step: Steps since the episode began. None if it failed before the first.
        reason: Why, in one line.
        details: The traceback, if there is one.
    """

    scenario_id: str
    step: int | None
    reason: str
    details: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Driven:
    """What came of driving some scenarios.

    Attributes:
        rollout: The episodes, one for each scenario. Actions are the states that followed, as in
            `StateDynamics`, valid for the agents that did not follow the log.
        failures: Scenarios that the planner failed in.
        seconds: How long each call of the planner took (s).
        start_seconds: How long it took to prepare for each scenario (s).
    """

    rollout: Rollout
    failures: tuple[Failure, ...]
    seconds: tuple[float, ...]
    start_seconds: tuple[float, ...]


def drive(
    ego: EgoDriver,
    scenarios: Sequence[Scenario],
    *,
    traffic: Sequence[TrafficGroup] = (),
    num_steps: int = FUTURE_STEPS,
    seed: int = 0,
    device: torch.device | None = None,
) -> Driven:
    """Drives scenarios side by side.

    Agents that no group of the traffic drives replay the log: they come and go as they did. Of the
    types that are driven, those that are absent at the current step never come, as in the Sim
    Agents Challenge: where they would appear depends on traffic that is no longer the log's.

    A planner that fails is not asked again in that scenario. The ego then brakes, straight ahead
    and by `BRAKING`, and stands.

    Args:
        ego: Who drives the sdc.
        scenarios: Scenarios without batch dimensions.
        traffic: Who drives the others.
        num_steps: Steps to drive after the current one.
        seed: Decides what is drawn at random.
        device: Where it is simulated; by default, on the CPU.

    Raises:
        ValueError: A scenario has no sdc at the current step, or groups of the traffic share types.

    Example:
        >>> from catk_sim.datasets import open_scenarios
        >>> from catk_sim.planning.drivers import PlannerDriver
        >>> from catk_sim.planning.loading import load_planner
        >>> scenarios = [next(iter(open_scenarios("synthetic")))]
        >>> driven = drive(PlannerDriver(lambda: load_planner("idm")), scenarios, num_steps=10)
        >>> driven.rollout.simulated.num_steps
        21
    """
    worlds = [scenario.to(torch.float32) for scenario in scenarios]
    for world in worlds:
        ego_index(world)
    batch = _without_late(collate(worlds).to(device or torch.device("cpu")), traffic)
    simulator = Simulator(StateDynamics())
    state = simulator.reset(batch, batch.agents.is_sdc)
    crowd = _Crowd(traffic, state, seed)
    problems: list[Problem | None] = ego.start(worlds, state, horizon=num_steps, seed=seed)
    failed: list[int | None] = [None] * len(worlds)
    motion, actions = [state.history], []
    for step in range(num_steps):
        others, follows = crowd.move(state)
        asked = [world for world, problem in enumerate(problems) if problem is None]
        moved = dict(zip(asked, ego.move(state, asked), strict=True))
        for world, outcome in moved.items():
            if isinstance(outcome, Problem):
                problems[world], failed[world] = outcome, step
        # Who is not among those that moved has failed.
        states = [
            _state_of(moved.get(index), world, state.history, index)
            for index, world in enumerate(worlds)
        ]
        chosen = _with_egos(others, states, batch.agents.is_sdc)
        follows = follows | batch.agents.is_sdc
        state = simulator.advance(state, chosen, follows)
        motion.append(state.current)
        actions.append(Action(data=_as_states(state.current), valid=follows))
    return Driven(
        rollout=Rollout(
            simulated=Trajectory.join(motion),
            final=state.replace(controlled=batch.agents.is_sdc | crowd.drives),
            actions=Action(
                data=torch.stack([action.data for action in actions], dim=1),
                valid=torch.stack([action.valid for action in actions], dim=1),
            ),
        ),
        failures=_failures(worlds, problems, failed),
        seconds=tuple(ego.seconds),
        start_seconds=tuple(ego.start_seconds),
    )


def _failures(
    worlds: Sequence[Scenario], problems: Sequence[Problem | None], steps: Sequence[int | None]
) -> tuple[Failure, ...]:
    return tuple(
        Failure(
            scenario_id=world.scenario_id[0],
            step=step,
            reason=problem.reason,
            details=problem.details,
        )
        for world, problem, step in zip(worlds, problems, steps, strict=True)
        if problem is not None
    )


class _Crowd:
    """The traffic: groups of agents, each driven by its policy.

    Args:
        groups: The groups.
        state: The start of the episode.
        seed: Decides what the policies draw.
    """

    def __init__(self, groups: Sequence[TrafficGroup], state: SimState, seed: int) -> None:
        types = [kind for group in groups for kind in group.types]
        if len(set(types)) < len(types):
            raise ValueError("wanted one policy for each type of agent, got several for some")
        self.drives = torch.zeros_like(state.controlled)
        self._parts: list[Background] = []
        present = sim_agents(state.scenario)
        for position, group in enumerate(groups):
            members = group.members(state.scenario)
            part = Background(group.policy, state.step.device)
            part.seed(seed + position)
            # It drives whoever is present and not controlled by somebody else.
            with torch.no_grad():
                part.start(state.replace(controlled=~members), range(members.shape[0]))
            self._parts.append(part)
            self.drives = self.drives | (members & present)

    @torch.no_grad()
    def move(self, state: SimState) -> tuple[Trajectory, Bool[Tensor, "worlds agents"]]:
        """Moves everybody by a step, and tells who does not follow the log."""
        motion, follows = state.current, torch.zeros_like(self.drives)
        for part in self._parts:
            moved, acts = part.move(state, 1)
            motion, follows = moved.where(acts, motion), follows | acts
        return motion, follows


def _without_late(batch: Scenario, traffic: Sequence[TrafficGroup]) -> Scenario:
    """Hides agents that come later from those steps, if they are of a type that is driven."""
    log = batch.log
    hidden = without_late_agents(batch).log.valid
    valid = log.valid
    for group in traffic:
        valid = torch.where(group.members(batch)[..., None], hidden, valid)
    return batch.replace(log=log.replace(valid=valid))


def _state_of(
    outcome: EgoState | Problem | None, world: Scenario, histories: Trajectory, index: int
) -> EgoState:
    if isinstance(outcome, EgoState):
        return outcome
    return brake(ego_history(world.to("cpu"), histories.select(index).to("cpu")), BRAKING)


def _with_egos(
    motion: Trajectory, egos: Sequence[EgoState], is_sdc: Bool[Tensor, "worlds agents"]
) -> Trajectory:
    xy = motion.xy
    data = [[*ego.xy.tolist(), ego.heading, *ego.velocity.tolist()] for ego in egos]
    # (worlds, agents, steps, 5)
    ego = torch.tensor(data, dtype=xy.dtype, device=xy.device)[:, None, None]
    own = motion.replace(
        xy=ego[..., :2].expand_as(xy),
        heading=ego[..., 2].expand_as(motion.heading),
        velocity=ego[..., 3:].expand_as(xy),
        valid=torch.ones_like(motion.valid),
    )
    return own.where(is_sdc, motion)


def _as_states(now: Trajectory) -> Tensor:
    return torch.cat([now.xy, now.heading[..., None], now.velocity], dim=-1)[..., 0, :]
