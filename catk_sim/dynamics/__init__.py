"""Dynamics models: how an action moves an agent."""

from catk_sim.dynamics.base import DynamicsModel as DynamicsModel
