"""The realism of the ego alone."""

import torch

from catk_sim.datatypes import Scenario, Trajectory
from catk_sim.metrics.sim_agents.joint_scenes import JointScenes
from catk_sim.metrics.sim_agents.scene import EvaluatedScene

AWAY = 1e6
"""Where agents are while they are absent (m): too far away to be near anybody."""


def only_ego_evaluated(scenario: Scenario) -> Scenario:
    """Leaves the sdc as the only agent whose realism is scored.

        metric = SimAgentsMetric("2024")
        prepared = metric.prepare(only_ego_evaluated(scenario))
        scores = metric(prepared, ego_joint_scenes(rollout.simulated, prepared.scene))

    As for the ego policies of Zhang et al., "Closed-Loop Supervised Fine-Tuning of Tokenized
    Traffic Models", arXiv:2412.05334, Table 3; but catk takes all others out of the scene, so that
    the ego has nobody to keep clear of. Here they are in it.
    """
    nobody = torch.zeros_like(scenario.agents.to_predict)
    return scenario.replace(agents=scenario.agents.replace(to_predict=nobody))


def ego_joint_scenes(simulated: Trajectory, scene: EvaluatedScene) -> JointScenes:
    """Takes what the metric scores out of rollouts in which others leave with the log.

    The metric wants every agent at all steps. One that stayed where it was last would be in the
    ego's way; so while it is absent it is put `AWAY`, where it makes no difference.

    Args:
        simulated: `Rollout.simulated`: rollouts along the first dimension, then the scenario's.
        scene: The sim agents of what was simulated, with the sdc as the only one to evaluate.

    Raises:
        ValueError: The sdc is absent at some step, or more agents than it are to be evaluated.
    """
    if scene.evaluated.shape[-1] != 1:
        raise ValueError(
            "wanted a scene with one agent to evaluate, see only_ego_evaluated, got one with "
            f"{scene.evaluated.shape[-1]}"
        )
    track = scene.track.gather(-1, scene.evaluated)
    agent = torch.arange(simulated.num_agents, device=track.device)
    absent = ~simulated.valid & (agent != track)[..., None]
    return JointScenes.from_rollout(
        simulated.replace(
            xy=torch.where(absent[..., None], AWAY, simulated.xy), valid=simulated.valid | absent
        ),
        scene,
    )
