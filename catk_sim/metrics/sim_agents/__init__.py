"""The realism metric of the Waymo Open Sim Agents Challenge (WOSAC)."""

from catk_sim.metrics.sim_agents.config import VERSIONS as VERSIONS
from catk_sim.metrics.sim_agents.config import SimAgentsConfig as SimAgentsConfig
from catk_sim.metrics.sim_agents.config import sim_agents_config as sim_agents_config
from catk_sim.metrics.sim_agents.joint_scenes import JointScenes as JointScenes
from catk_sim.metrics.sim_agents.metric import PreparedScene as PreparedScene
from catk_sim.metrics.sim_agents.metric import SimAgentsMetric as SimAgentsMetric
from catk_sim.metrics.sim_agents.realism import SimAgentsMetrics as SimAgentsMetrics
