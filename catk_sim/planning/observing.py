"""What a planner gets to see of a simulation, and no more."""

import numpy as np
import torch
from jaxtyping import Shaped
from numpy import ndarray
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, STEP_SECONDS
from catk_sim.datatypes import AgentMetadata, Scenario, TrafficLights, Trajectory
from catk_sim.planning.planner import (
    EgoHistory,
    PlannerContext,
    PlannerInput,
    SeenLights,
    TrackedAgents,
)
from catk_sim.planning.route import Route, ego_index


def make_context(scenario: Scenario, *, horizon: int, seed: int, with_log: bool) -> PlannerContext:
    """Tells a planner what does not change.

    Args:
        scenario: One scenario, in float32.
        horizon: Steps that will be driven.
        seed: For planners that draw random numbers.
        with_log: Whether it is shown the whole log.
    """
    ego = ego_index(scenario)
    last = int(scenario.log.valid[ego].nonzero()[-1])
    x, y = scenario.log.xy[ego, last].tolist()
    return PlannerContext(
        scenario_id=scenario.scenario_id[0],
        # Copies: a view would show the storage of the whole.
        roadgraph=scenario.roadgraph.to("cpu").map(torch.clone),
        route=Route.from_scenario(scenario).to("cpu").map(torch.clone),
        goal=np.array([x, y, scenario.log.heading[ego, last].item()]),
        ego_size=_copied(scenario.agents.size[ego]),
        step_seconds=STEP_SECONDS,
        horizon=horizon,
        seed=seed,
        log=scenario.to("cpu").map(torch.clone) if with_log else None,
    )


def observe(scenario: Scenario, history: Trajectory, step: int) -> PlannerInput:
    """Shows a planner the last steps of a simulation.

    Args:
        scenario: One scenario, on the CPU. Of its log nothing is read.
        history: What was simulated until now.
        step: The current step in the log's time.
    """
    return PlannerInput(
        step=step - CURRENT_STEP,
        ego=ego_history(scenario, history),
        agents=_tracked(scenario.agents, history),
        traffic_lights=_lights(scenario.traffic_lights, step),
    )


def ego_history(scenario: Scenario, history: Trajectory) -> EgoHistory:
    """Tells where the sdc was, as long as it was seen without a gap."""
    ego = int(scenario.agents.sdc_index)
    absent = (~history.valid[ego]).nonzero().flatten().tolist()
    start = absent[-1] + 1 if absent else 0
    return EgoHistory(
        xy=_copied(history.xy[ego, start:]),
        heading=_copied(history.heading[ego, start:]),
        velocity=_copied(history.velocity[ego, start:]),
    )


def _tracked(agents: AgentMetadata, history: Trajectory) -> TrackedAgents:
    valid = history.valid & agents.valid[:, None] & ~agents.is_sdc[:, None]
    # Whoever was not seen lately is not listed: that an agent will come is the future.
    seen = valid.any(dim=-1)
    valid = valid[seen]

    def shown(field: Shaped[Tensor, "..."]) -> ndarray:
        mask = valid if field.dim() == 2 else valid[..., None]
        return _copied(torch.where(mask, field[seen], 0.0))

    return TrackedAgents(
        id=_copied(agents.agent_id[seen], np.int64),
        type=_copied(agents.type[seen], np.int64),
        size=_copied(agents.size[seen]),
        xy=shown(history.xy),
        heading=shown(history.heading),
        velocity=shown(history.velocity),
        valid=_copied(valid, np.bool_),
    )


def _lights(lights: TrafficLights, step: int) -> SeenLights:
    now = lights.at(torch.tensor(step))
    seen = now.valid[:, 0]
    return SeenLights(
        lane=_copied(now.lane_id[seen], np.int64),
        state=_copied(now.state[seen, 0], np.int64),
        stop_point=_copied(now.stop_xyz[seen, 0, :2]),
    )


def _copied(tensor: Tensor, dtype: type = np.float64) -> ndarray:
    return np.array(tensor.numpy(), dtype=dtype)
