"""What the Sim Agents metric reads of a scenario."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, FUTURE_STEPS, HISTORY_STEPS, NUM_STEPS
from catk_sim.datatypes import Scenario, TensorTree
from catk_sim.metrics.box_trajectory import BoxTrajectory, take_agents


class UnscorableError(ValueError):
    """A scenario that the Sim Agents metric is not defined for."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EvaluatedScene(TensorTree):
    """The sim agents of a scenario, or of a padded batch, as WOSAC knows them.

    Sim agents are the tracks that are valid at the current step. WOSAC does not know the others.

    Attributes:
        scenario_id: WOMD's id of each scenario.
        track: Index of each sim agent among the scenario's agents, in that order.
        object_id: WOMD's track id of each sim agent.
        object_type: `AgentType` of each sim agent.
        is_sim_agent: False for padding.
        evaluated: Index, among the sim agents, of those that are scored: the sdc and the tracks to
            predict, by ascending object id.
        is_evaluated: False for padding.
        origin: Where the scenario's frame stands in the file's (m).
        logged: What was logged of the sim agents, in the file's own coordinates, in float32. Where
            they are absent, what the file says all the same: zeros, mostly.
    """

    scenario_id: tuple[str, ...]
    track: Int[Tensor, "*batch agents"]
    object_id: Int[Tensor, "*batch agents"]
    object_type: Int[Tensor, "*batch agents"]
    is_sim_agent: Bool[Tensor, "*batch agents"]
    evaluated: Int[Tensor, "*batch evaluated"]
    is_evaluated: Bool[Tensor, "*batch evaluated"]
    origin: Float[Tensor, "*batch 3"]
    logged: BoxTrajectory

    @classmethod
    def from_scenario(cls, scenario: Scenario, *, evaluate_all: bool = False) -> "EvaluatedScene":
        """Picks the sim agents out of a scenario.

        Args:
            scenario: As read from a file, in float64: then all coordinates are, to the bit, those
                that the official evaluation computes with. From float32 they may differ by the
                rounding of the file's coordinates (0.5 mm at 8 km).
            evaluate_all: Whether all sim agents are scored, in the order of their tracks, as for
                scenario generation.

        Raises:
            UnscorableError: The scenario does not have 91 steps, it has no agent to evaluate, or an
                agent that is to be evaluated is not valid at the current step.
        """
        _check_steps(scenario)
        is_sim_agent = scenario.agents.valid & scenario.log.valid[..., CURRENT_STEP]
        track, is_kept = _indices(is_sim_agent)
        chosen = scenario.agents.is_sdc | scenario.agents.to_predict
        _check_agents(scenario, is_sim_agent, chosen)
        object_id = torch.where(is_kept, scenario.agents.agent_id.gather(-1, track), -1)
        if evaluate_all:
            evaluated, is_evaluated = _indices(is_kept)
        else:
            is_chosen = is_kept & chosen.gather(-1, track)
            evaluated, is_evaluated = _indices(is_chosen, by=object_id)
        return cls(
            scenario_id=scenario.scenario_id,
            track=track,
            object_id=object_id,
            object_type=torch.where(is_kept, scenario.agents.type.gather(-1, track), 0),
            is_sim_agent=is_kept,
            evaluated=evaluated,
            is_evaluated=is_evaluated,
            origin=scenario.origin,
            logged=_logged_boxes(scenario, track, is_kept),
        )

    @property
    def num_agents(self) -> int:
        """Sim agents per scenario, padding included."""
        return self.object_id.shape[-1]

    def always_valid(self) -> Bool[Tensor, "*batch agents steps"]:
        """Tells of all sim agents that they are there at all steps."""
        return self.is_sim_agent[..., None].expand(*self.is_sim_agent.shape, NUM_STEPS)


def file_coordinates(values: Tensor, origin: Tensor) -> Tensor:
    """Moves coordinates back to where the file has them, and rounds them to float32.

    Args:
        values: Coordinates relative to a scenario's origin (m).
        origin: That coordinate of the origin, which broadcasts (m).
    """
    return (values.double() + origin.double()).float()


def in_file_frame(scenario: Scenario) -> Scenario:
    """Returns a scenario whose map and lights have the file's own coordinates, in float32.

    A light has state 0 and its stop point at the file's own origin wherever it was not observed.
    The log stays where it is.
    """
    origin = scenario.origin
    lights = scenario.traffic_lights
    stop = file_coordinates(lights.stop_xyz, origin[..., None, None, :])
    return scenario.replace(
        roadgraph=scenario.roadgraph.replace(
            xyz=file_coordinates(scenario.roadgraph.xyz, origin[..., None, :])
        ),
        traffic_lights=lights.replace(
            state=torch.where(lights.valid, lights.state, 0),
            stop_xyz=torch.where(lights.valid[..., None], stop, 0.0),
        ),
    )


def _logged_boxes(
    scenario: Scenario, track: Int[Tensor, "*batch taken"], is_kept: Bool[Tensor, "*batch taken"]
) -> BoxTrajectory:
    log, origin = scenario.log, scenario.origin[..., None, None, :]

    def taken(values: Tensor) -> Tensor:
        return take_agents(values, track)

    def kept(values: Tensor) -> Tensor:
        return torch.where(is_kept[..., None], values, 0).float()

    return BoxTrajectory(
        x=kept(file_coordinates(taken(log.xy[..., 0]), origin[..., 0])),
        y=kept(file_coordinates(taken(log.xy[..., 1]), origin[..., 1])),
        z=kept(file_coordinates(taken(log.z), origin[..., 2])),
        heading=kept(taken(log.heading)),
        length=kept(taken(scenario.log_size[..., 0])),
        width=kept(taken(scenario.log_size[..., 1])),
        height=kept(taken(scenario.log_size[..., 2])),
        valid=taken(log.valid) & is_kept[..., None],
    )


def _indices(
    chosen: Bool[Tensor, "*batch agents"], by: Int[Tensor, "*batch agents"] | None = None
) -> tuple[Int[Tensor, "*batch taken"], Bool[Tensor, "*batch taken"]]:
    """Lists the indices of what is chosen, in order or sorted by a key, padded with index 0."""
    position = torch.arange(chosen.shape[-1], device=chosen.device).expand_as(chosen)
    key = position if by is None else by
    last = torch.iinfo(torch.int64).max
    order = torch.where(chosen, key.long(), last).argsort(dim=-1, stable=True)
    count = int(chosen.sum(dim=-1).max())
    order = order[..., :count]
    is_chosen = chosen.gather(-1, order)
    return torch.where(is_chosen, order, 0), is_chosen


def _check_steps(scenario: Scenario) -> None:
    steps = scenario.log.num_steps
    if steps != NUM_STEPS:
        raise UnscorableError(
            f"the Sim Agents metric wants scenarios of {NUM_STEPS} steps ({HISTORY_STEPS} of "
            f"history, {FUTURE_STEPS} to simulate), got {steps} in "
            f"{', '.join(scenario.scenario_id[:3])}"
        )


def _check_agents(
    scenario: Scenario,
    is_sim_agent: Bool[Tensor, "*batch agents"],
    chosen: Bool[Tensor, "*batch agents"],
) -> None:
    agents = scenario.agents
    num_agents = agents.valid.shape[-1]
    rows = zip(
        scenario.scenario_id,
        agents.agent_id.reshape(-1, num_agents),
        (chosen & agents.valid & ~is_sim_agent).reshape(-1, num_agents),
        (chosen & is_sim_agent).reshape(-1, num_agents),
        strict=True,
    )
    for scenario_id, agent_id, absent, evaluated in rows:
        if absent.any():
            raise UnscorableError(
                f"scenario {scenario_id}: agents {agent_id[absent].tolist()} are to be evaluated "
                f"but not valid at the current step ({CURRENT_STEP})"
            )
        if not evaluated.any():
            raise UnscorableError(
                f"scenario {scenario_id} has no agent to evaluate: neither an sdc nor a track to "
                f"predict is valid at the current step ({CURRENT_STEP})"
            )
