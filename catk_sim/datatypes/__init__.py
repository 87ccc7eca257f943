"""The records that flow through the simulator."""

from catk_sim.datatypes.action import Action as Action
from catk_sim.datatypes.agents import AgentMetadata as AgentMetadata
from catk_sim.datatypes.agents import AgentType as AgentType
from catk_sim.datatypes.roadgraph import LaneLinks as LaneLinks
from catk_sim.datatypes.roadgraph import LaneLinkType as LaneLinkType
from catk_sim.datatypes.roadgraph import MapFeatureType as MapFeatureType
from catk_sim.datatypes.roadgraph import RoadGraph as RoadGraph
from catk_sim.datatypes.rollout import Rollout as Rollout
from catk_sim.datatypes.scenario import Scenario as Scenario
from catk_sim.datatypes.sim_state import SimState as SimState
from catk_sim.datatypes.tensor_tree import TensorTree as TensorTree
from catk_sim.datatypes.traffic_lights import TrafficLights as TrafficLights
from catk_sim.datatypes.traffic_lights import TrafficLightState as TrafficLightState
from catk_sim.datatypes.trajectory import Trajectory as Trajectory
