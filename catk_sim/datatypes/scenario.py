"""What was logged."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from catk_sim.datatypes.agents import AgentMetadata
from catk_sim.datatypes.roadgraph import RoadGraph
from catk_sim.datatypes.tensor_tree import TensorTree
from catk_sim.datatypes.traffic_lights import TrafficLights
from catk_sim.datatypes.trajectory import Trajectory


@dataclass(frozen=True, eq=False, kw_only=True)
class Scenario(TensorTree):
    """A logged scenario, or a padded batch of them.

    All positions are relative to `origin`, so that float32 resolves them to micrometres; WOMD's
    own coordinates reach kilometres. As read from a file a scenario is float64 and loses nothing;
    `scenario.to(torch.float32)` is what simulation and learning work on.

    Attributes:
        scenario_id: WOMD's id of each scenario of the batch; one entry for a single scenario.
        lacks: For each scenario, what its source does not tell, as short phrases in alphabetical
            order, joined by ", ". Empty for WOMD's own files.
        origin: Where the scenario's frame stands in the source's (m), in whole metres: the sdc at
            the current step, rounded. Exact in float32.
        timestamps: Time of each step (s).
        log: Logged motion of every agent.
        log_size: Logged length, width, height at each step (m).
        agents: Identity, kind and size of every agent.
        roadgraph: The map.
        traffic_lights: The lights.
    """

    scenario_id: tuple[str, ...]
    lacks: tuple[str, ...]
    origin: Float[Tensor, "*batch 3"]
    timestamps: Float[Tensor, "*batch steps"]
    log: Trajectory
    log_size: Float[Tensor, "*batch agents steps 3"]
    agents: AgentMetadata
    roadgraph: RoadGraph
    traffic_lights: TrafficLights
