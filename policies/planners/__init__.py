"""Planners to compare with."""

from policies.planners.constant_velocity import ConstantVelocityPlanner as ConstantVelocityPlanner
from policies.planners.idm import IDMPlanner as IDMPlanner
from policies.planners.log_replay import LogReplayPlanner as LogReplayPlanner
from policies.planners.pdm import PDMPlanner as PDMPlanner
