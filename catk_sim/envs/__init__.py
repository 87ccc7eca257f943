"""The Gymnasium environment CatK-Waymo-v0, and wrappers around it."""

from catk_sim.envs.closest_among_top_k import ClosestAmongTopK as ClosestAmongTopK
from catk_sim.envs.config import EnvConfig as EnvConfig
from catk_sim.envs.env import WaymoEnv as WaymoEnv
from catk_sim.envs.vector_env import WaymoVectorEnv as WaymoVectorEnv
