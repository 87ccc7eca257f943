"""Dynamics models: how an action moves an agent."""

from catk_sim.dynamics.base import DynamicsModel as DynamicsModel
from catk_sim.dynamics.bicycle import InvertibleBicycle as InvertibleBicycle
from catk_sim.dynamics.delta import DeltaLocal as DeltaLocal
from catk_sim.dynamics.held import Held as Held
from catk_sim.dynamics.pose import PoseDynamics as PoseDynamics
from catk_sim.dynamics.state import StateDynamics as StateDynamics
from catk_sim.dynamics.token import TokenDynamics as TokenDynamics
