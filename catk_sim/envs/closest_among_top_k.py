"""The rollout oracle of CAT-K, around the environment."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from jaxtyping import Bool, Int
from torch import Tensor
from typing_extensions import override

from catk_sim.constants import STEPS_PER_TOKEN
from catk_sim.datatypes import Scenario, SimState, Trajectory
from catk_sim.dynamics import TokenDynamics
from catk_sim.envs.infos import Info, to_numpy
from catk_sim.envs.vector_env import StepResult, WaymoVectorEnv
from catk_sim.geometry import se2
from catk_sim.observation import fit
from catk_sim.tokens.matching import match_step, prepare
from catk_sim.tokens.sampling import closest_to_pose_among_top_k


class ClosestAmongTopK(VectorWrapper[Any, Any, Any, Any, Any]):
    """Takes a policy's logits, and plays the likely tokens that stay closest to the log (CAT-K).

    Zhang et al., "Closed-Loop Supervised Fine-Tuning of Tokenized Traffic Models", CVPR 2025,
    arXiv:2412.05334. For every agent the nearest to the log of its `k` most likely tokens is
    played, and the most likely one where the log has no next position. Distances are measured to
    the log at the next half second, cleaned.

    The infos of a step have, per world and agent:

        token             the token that was played; arbitrary for an agent that is absent
        recovery_token    the token that best leads from where the agent was to where the log is
                          next: the label to learn, whatever was played; arbitrary if there is none
        recovery_valid    whether there is such a label: a controlled agent with a log to return to

    Args:
        env: The environment, with action "token". To play the sdc alone, pass as `controlled` a
            function that returns `scenario.agents.is_sdc`.
        k: How many tokens may be chosen from. 1 is greedy.
        sdc_radius: If given, the log ends where an agent is this far (m) from the sdc, as when
            SMART is trained.
        labels: Whether infos have `recovery_token`. Who learns from few of the agents asks for
            theirs at the end, by `recovery_tokens`, which is faster.

    Raises:
        ValueError: If the environment takes no token for each agent, or `k` is out of range.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        k: int,
        *,
        sdc_radius: float | None = None,
        labels: bool = True,
    ) -> None:
        super().__init__(env)
        worlds = self._waymo.worlds
        if not isinstance(worlds.actions.dynamics, TokenDynamics) or worlds.config.controls_sdc:
            raise ValueError(
                "ClosestAmongTopK needs action='token' and one action per agent, got "
                f"action={worlds.config.action!r}, controlled={worlds.config.controlled!r}"
            )
        self.vocabulary = worlds.actions.dynamics.vocabulary
        if not 1 <= k <= self.vocabulary.num_tokens:
            raise ValueError(f"k must be from 1 to {self.vocabulary.num_tokens}, got {k}")
        self.k = k
        self.sdc_radius = sdc_radius
        self.labels = labels
        row = (worlds.sizes.max_agents, self.vocabulary.num_tokens)
        self.single_action_space = Box(-np.inf, np.inf, row, np.float32)
        self.action_space = Box(-np.inf, np.inf, (self.num_envs, *row), np.float32)
        self._scenario: Scenario | None = None
        self._cleaned: Trajectory | None = None

    @override
    def reset(self, *, seed: Any = None, options: Mapping[str, Any] | None = None) -> Any:
        """Resets the environment."""
        return self.env.reset(seed=seed, options=options)  # pyright: ignore[reportArgumentType]

    @override
    def step(self, actions: np.ndarray | Tensor) -> StepResult:
        """Chooses a token for every agent and plays it.

        Args:
            actions: Logits of shape (num_envs, agents, tokens), for `max_agents` agents or exactly
                those of the state.
        """
        state = self._waymo.state
        given = torch.as_tensor(actions, device=state.step.device)
        logits = fit(given, 1, state.controlled.shape[-1])
        log = self._cleaned_log(state).gather(state.step[:, None] + STEPS_PER_TOKEN)
        recovers = log.valid[..., 0] & state.controlled
        entries = {"token": self._choose(logits, state, log), "recovery_valid": recovers}
        if self.labels:
            recovery = self._recover(state, state.current, log, recovers[..., None])
            entries["recovery_token"] = recovery[..., 0]
        result = self.env.step(entries["token"])
        num_agents = given.shape[1]
        entries = {name: fit(entry, 1, num_agents) for name, entry in entries.items()}
        return *result[:4], self._extended(result[4], entries)

    def recovery_tokens(
        self, visited: Trajectory, matters: Bool[Tensor, "worlds agents moves"]
    ) -> Int[Tensor, "worlds agents moves"]:
        """Finds the recovery tokens of an episode, in which no world was reset.

        Args:
            visited: Where agents were at the beginning, and after each step but the last.
            matters: For whom it is asked, and when. Elsewhere the tokens are arbitrary.
        """
        state, moves = self._waymo.state, torch.arange(visited.num_steps, 0, -1)
        log = self._cleaned_log(state)
        steps = state.step[:, None] - STEPS_PER_TOKEN * (moves.to(state.step.device) - 1)
        return self._recover(state, visited, log.gather(steps), matters)

    @property
    def _waymo(self) -> WaymoVectorEnv:
        env = self.env.unwrapped
        assert isinstance(env, WaymoVectorEnv)
        return env

    def _choose(self, logits: Tensor, state: SimState, log: Trajectory) -> Tensor:
        now, kind = state.current, state.scenario.agents.type
        xy_local, heading_local = _seen_from(now, log)
        inputs = (logits, kind, xy_local[..., 0, :], heading_local[..., 0], log.valid[..., 0])
        if logits.device.type != "cpu":
            return self._choose_for(*inputs)
        # Where it costs nothing to list who is there, the others are left out.
        present = now.valid.flatten().nonzero()[:, 0]
        chosen = self._choose_for(*(part.flatten(0, 1).index_select(0, present) for part in inputs))
        token = torch.zeros(kind.numel(), dtype=torch.int64)
        return token.index_copy_(0, present, chosen).view(kind.shape)

    def _choose_for(
        self, logits: Tensor, kind: Tensor, xy_local: Tensor, heading_local: Tensor, logged: Tensor
    ) -> Tensor:
        return closest_to_pose_among_top_k(
            logits, self.vocabulary, kind, xy_local, heading_local, self.k, has_log=logged
        )

    def _recover(
        self, state: SimState, visited: Trajectory, log: Trajectory, matters: Tensor
    ) -> Tensor:
        kind = state.scenario.agents.type[..., None].expand(matters.shape)
        return match_step(self.vocabulary, kind, *_seen_from(visited, log), matters=matters)

    def _cleaned_log(self, state: SimState) -> Trajectory:
        # A reset replaces the scenario, a step does not.
        if self._cleaned is None or state.scenario is not self._scenario:
            scenario = self._scenario = state.scenario
            self._cleaned = prepare(scenario.log, scenario.agents, sdc_radius=self.sdc_radius)
        return self._cleaned

    def _extended(self, info: Info, entries: dict[str, Tensor]) -> Info:
        everyone = torch.ones_like(entries["recovery_valid"][:, 0])
        if self._waymo.autoreset_mode == AutoresetMode.NEXT_STEP:
            # Worlds that were restarted instead played no token.
            played = info.get("_agent_rewards", np.zeros(self.num_envs, dtype=np.bool_))
            everyone = torch.as_tensor(played, device=everyone.device)
            entries["recovery_valid"] = entries["recovery_valid"] & everyone[:, None]
        masks = {f"_{name}": everyone for name in entries}
        extended = {**entries, **masks}
        if self._waymo.config.output == "numpy":
            extended = to_numpy(extended)
        return {**info, **extended}


def _seen_from(now: Trajectory, log: Trajectory) -> tuple[Tensor, Tensor]:
    """Tells logged poses in the frames of others: xy (m) and heading (rad)."""
    return se2.to_local(log.xy, now.xy, now.heading), log.heading - now.heading
