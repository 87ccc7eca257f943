"""CAT-K: closed-loop supervised fine-tuning with closest-among-top-K rollouts.

python -m trainers.catk [preset] [--field value ...]

Zhang et al., "Closed-Loop Supervised Fine-Tuning of Tokenized Traffic Models", CVPR 2025,
arXiv:2412.05334. The policy drives, but at each step takes, among its K most likely tokens, the one
that ends nearest to the log. So it visits states of its own making that still have a log to return
to, and learns the token that returns.
"""

from dataclasses import dataclass

import gymnasium
import torch
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.constants import HISTORY_MARKS, NUM_MARKS
from catk_sim.datatypes import Trajectory
from catk_sim.envs import ClosestAmongTopK, WaymoVectorEnv
from catk_sim.tokens import MotionTokens, MotionVocabulary
from policies.ego_gmm.model import EgoGMM
from policies.smart.agent_decoder import Situation
from policies.smart.layers import unchanging_weights
from policies.smart.model import SMART
from policies.smart.policy import SMARTPolicy
from trainers.bc import make_model, run_stage, train_behavior_cloning
from trainers.cli import parse_preset, run_trainer
from trainers.configs import CatKConfig, EgoCatKConfig, FitConfig
from trainers.ego_gmm import ego_catk_loss
from trainers.losses import score_moves
from trainers.presets import CATK_PRESETS
from trainers.run import Run, open_run
from trainers.scenes import Scene


@dataclass(frozen=True, eq=False, kw_only=True)
class VisitedStates:
    """What a CAT-K rollout leaves behind.

    Attributes:
        tokens: The states that the policy visited, and the tokens by which it got there.
        recovery_token: For each state from the current step on of an agent that carries loss, the
            token that best leads from it to the next logged state. Arbitrary for others.
        recovery_valid: Whether there is a next logged state.
        record: What the policy observed, mark by mark.
        map_features: What it made of the map.
    """

    tokens: MotionTokens
    recovery_token: Int[Tensor, "*batch agents moves"]
    recovery_valid: Bool[Tensor, "*batch agents moves"]
    record: list[Situation]
    map_features: Float[Tensor, "*batch map_tokens hidden"]


class RolloutOracle:
    """Drives scenes with CAT-K in `CatK-Waymo-v0`, without gradient.

    The policy is in evaluation mode, unlike in catk: without dropout its logits are those of the
    parallel pass that learns from the visited states, up to rounding.

    Args:
        vocabulary: The motion tokens.
        k: Tokens that may be chosen from.
        device: Where it is simulated.
    """

    def __init__(self, vocabulary: MotionVocabulary, k: int, device: torch.device) -> None:
        self._vocabulary = vocabulary
        self._k = k
        self._device = device
        self._envs: dict[int, tuple[ClosestAmongTopK, WaymoVectorEnv]] = {}

    @torch.no_grad()
    def drive(self, model: SMART, scene: Scene) -> VisitedStates:
        """Rolls a batch of scenes out to their ends."""
        was_training = model.training
        model.eval()
        try:
            with unchanging_weights():
                return self._drive(model, scene)
        finally:
            model.train(was_training)

    def _drive(self, model: SMART, scene: Scene) -> VisitedStates:
        env, world = self._env(scene.scenario.batch_size)
        record: list[Situation] = []
        policy = SMARTPolicy(model, self._vocabulary, record=record)
        env.reset(options={"scenario": scene.scenario})
        state = world.state
        history = scene.tokenized.tokens.slice(0, HISTORY_MARKS)
        memory = policy.init(state, map_tokens=scene.map_tokens, history=history)
        map_features = memory.memory.map_memory.features
        poses, infos = [state.current], []
        for _ in range(HISTORY_MARKS, NUM_MARKS):
            logits, memory = policy.logits(state, memory)
            *_, info = env.step(logits)
            state = world.state
            poses.append(state.current)
            infos.append(info)
        driven = Trajectory.join(poses)
        token, recovery_valid = (
            torch.stack([info[name] for info in infos], dim=-1)
            for name in ("token", "recovery_valid")
        )
        learned = recovery_valid & scene.learned[..., None]
        return VisitedStates(
            tokens=_visited_tokens(scene, driven, token),
            recovery_token=env.recovery_tokens(driven.slice(0, len(infos)), learned),
            recovery_valid=recovery_valid,
            record=record,
            map_features=map_features,
        )

    def _env(self, num_envs: int) -> tuple[ClosestAmongTopK, WaymoVectorEnv]:
        if num_envs not in self._envs:
            env = gymnasium.make_vec(
                "CatK-Waymo-v0",
                num_envs=num_envs,
                data=None,
                action="token",
                controlled="all",
                observation="minimal",
                reward=None,
                report=(),
                vocabulary=self._vocabulary,
                autoreset_mode=AutoresetMode.DISABLED,
                output="torch",
                device=self._device,
            )
            assert isinstance(env, WaymoVectorEnv)
            self._envs[num_envs] = ClosestAmongTopK(env, k=self._k, labels=False), env
        return self._envs[num_envs]


def _visited_tokens(
    scene: Scene, driven: Trajectory, token: Int[Tensor, "*batch agents moves"]
) -> MotionTokens:
    # Marks 0 and 1 are history: told in tokens, and the current step is where the rollout began.
    history = scene.tokenized.tokens
    before = HISTORY_MARKS - 1
    return MotionTokens(
        token=torch.cat([history.token[..., :HISTORY_MARKS], token], dim=-1),
        xy=torch.cat([history.xy[..., :before, :], driven.xy], dim=-2),
        heading=torch.cat([history.heading[..., :before], driven.heading], dim=-1),
        valid=torch.cat([history.valid[..., :before], driven.valid], dim=-1),
    )


def catk_loss(
    model: SMART, scene: Scene, oracle: RolloutOracle, config: FitConfig
) -> tuple[Tensor, dict[str, float]]:
    """Rolls the policy out, then scores the recovery tokens at the states that it visited.

    All states are scored in one parallel pass. What is frozen in fine-tuning, the map's features
    and how agents stand to it and to each other, is taken from the rollout: so the gradient reaches
    the decoder's attention and the head only, and frozen layers drop nothing out.

    Args:
        model: The policy.
        scene: A batch of scenes.
        oracle: Drives the rollout.
        config: Label smoothing.
    """
    visited = oracle.drive(model, scene)
    features, nodes = model.features_of(visited.record, visited.map_features)
    weighted = visited.recovery_valid & scene.learned[..., None]
    current = HISTORY_MARKS - 1
    move = (nodes.entry, nodes.agent, (nodes.mark - current).clamp(min=0))
    counts = weighted[move] & (nodes.mark >= current)
    return score_moves(
        model.head,
        features[counts],
        visited.recovery_token[move][counts],
        label_smoothing=config.label_smoothing,
    )


def fine_tune(run: Run, model: SMART | EgoGMM, config: CatKConfig) -> None:
    """Runs the stage, or what is left of it, and saves its policy in the run's folder."""
    oracle = RolloutOracle(run.vocabulary, config.k, run.device)

    def loss(scene: Scene) -> tuple[Tensor, dict[str, float]]:
        if isinstance(model, EgoGMM):
            assert isinstance(config, EgoCatKConfig)
            return ego_catk_loss(
                model,
                scene,
                config.k,
                whom=config.learners,
                recovery=config.recovery,
                max_deviation=config.max_deviation,
            )
        return catk_loss(model, scene, oracle, config.catk)

    trained = model.fine_tuning_parameters()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    run_stage(run, model, "catk", config.catk, loss=loss, parameters=trained)


def train(config: CatKConfig) -> Run:
    """Trains by behavior cloning, unless a checkpoint is given, and fine-tunes with CAT-K."""
    run = open_run(config, "catk")
    model = make_model(run, config.checkpoint)
    _check_k(config.k, model)
    if config.checkpoint is None:
        train_behavior_cloning(run, model, config.bc)
    else:
        run.save("bc", model)
    fine_tune(run, model, config)
    return run


def _check_k(k: int, model: SMART | EgoGMM) -> None:
    if isinstance(model, EgoGMM):
        count, kind = model.mixture_config.num_modes, "modes"
    else:
        count, kind = model.vocabulary.num_tokens, "tokens"
    if k > count:
        raise ValueError(f"k must be at most {count}, the {kind} there are, got {k}")


def main(args: list[str]) -> None:
    """Trains, and compares the policy before and after fine-tuning."""
    config: CatKConfig = parse_preset(CATK_PRESETS, "demo", args, prog="python -m trainers.catk")
    run = train(config)
    # Here, so that training does without what compares and draws the report.
    if isinstance(config, EgoCatKConfig):
        from trainers.ego_benchmark import compare_ego

        compare_ego(run)
    else:
        from trainers.report import compare

        compare(run)


if __name__ == "__main__":
    run_trainer(main)
