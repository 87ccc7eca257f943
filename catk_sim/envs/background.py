"""Agents that nobody controls, driven by a policy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from catk_sim.datatypes import Action, Scenario, SimState, TensorTree, Trajectory
from catk_sim.datatypes.tensor_tree import Tree
from catk_sim.envs.scenarios import select_controlled
from catk_sim.rollout import Policy


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Worlds that were reset together, so that the policy is at the same step in all of them.

    Attributes:
        worlds: Their indices in the environment.
        scenario: What was logged in them, as they were when they were reset. Later resets of other
            worlds may pad the environment's batch; what the policy remembers is not padded.
        drives: Agents that the policy is asked to drive.
        acts: Those of them whose last action is valid. The others follow the log until the next.
        memory: What the policy remembers.
        planned: Motion that is chosen but not yet played.
        last_action: The policy's last action.
    """

    worlds: tuple[int, ...]
    scenario: Scenario
    drives: Bool[Tensor, "worlds agents"]
    acts: Bool[Tensor, "worlds agents"]
    memory: TensorTree
    planned: Trajectory
    last_action: Action

    def without(self, worlds: Sequence[int]) -> "_Group | None":
        kept = [place for place, world in enumerate(self.worlds) if world not in worlds]
        if not kept:
            return None
        if len(kept) == len(self.worlds):
            return self
        return _Group(
            worlds=tuple(self.worlds[place] for place in kept),
            scenario=_take(self.scenario, kept),
            drives=self.drives[kept],
            acts=self.acts[kept],
            memory=_take(self.memory, kept),
            planned=_take(self.planned, kept),
            last_action=_take(self.last_action, kept),
        )


class Background:
    """Drives, in every world, the agents that are present at the start and not controlled.

    The policy may act more often than the environment, or less: a longer action is played out step
    by step, while shorter ones are chosen as the world moves.

    Args:
        policy: Who drives.
        device: Where the policy's random numbers are drawn.
    """

    def __init__(self, policy: Policy, device: torch.device) -> None:
        self.policy = policy
        self._generator = Generator(device)
        self._groups: list[_Group] = []

    @property
    def steps_per_action(self) -> int:
        """Steps that one action of the policy covers."""
        return self.policy.dynamics.steps_per_action

    def seed(self, seed: int) -> None:
        """Restarts the randomness of the policy, which all worlds share."""
        self._generator.manual_seed(seed)

    def start(self, state: SimState, worlds: Sequence[int]) -> None:
        """Prepares the policy for worlds that were reset.

        Args:
            state: These worlds alone, in this order.
            worlds: Their indices in the environment.
        """
        drives = select_controlled("all", state.scenario) & ~state.controlled
        view = state.replace(controlled=drives, last_action=_no_token(drives))
        self.stop(worlds)
        self._groups.append(
            _Group(
                worlds=tuple(worlds),
                scenario=state.scenario,
                drives=drives,
                acts=drives,
                memory=self.policy.init(view),
                planned=state.history.slice(0, 0),
                last_action=view.last_action,
            )
        )

    def stop(self, worlds: Sequence[int]) -> None:
        """Leaves worlds alone: their agents follow the log until they are started again."""
        others = [group.without(worlds) for group in self._groups]
        self._groups = [group for group in others if group is not None]

    def move(
        self, state: SimState, num_steps: int
    ) -> tuple[Trajectory, Bool[Tensor, "worlds agents"]]:
        """Moves the agents that the policy drives, and tells who they are.

        Args:
            state: The worlds now.
            num_steps: How far; a divisor of `steps_per_action`.
        """
        parts = []
        for position, group in enumerate(self._groups):
            acted = self._plan(group, state) if group.planned.num_steps == 0 else group
            parts.append(acted.planned.slice(0, num_steps))
            later = acted.planned.slice(num_steps, acted.planned.num_steps)
            self._groups[position] = replace(acted, planned=later)
        if len(parts) == 1 and _is_everything(self._groups[0], state):
            return parts[0], self._groups[0].acts
        return self._assemble(parts, state, num_steps)

    def _plan(self, group: _Group, state: SimState) -> _Group:
        view = _view(group, state)
        action, memory = self.policy.act(view, group.memory, self._generator)
        motion = self.policy.dynamics.forward(view.current, action.data, view.scenario.agents)
        acts = group.drives & action.valid
        return replace(
            group,
            memory=memory,
            acts=acts,
            planned=motion,
            last_action=Action(data=action.data, valid=acts),
        )

    def _assemble(
        self, parts: Sequence[Trajectory], state: SimState, num_steps: int
    ) -> tuple[Trajectory, Bool[Tensor, "worlds agents"]]:
        shape = (*state.controlled.shape, num_steps)
        history = state.history
        motion = Trajectory(
            xy=history.xy.new_zeros(*shape, 2),
            z=history.z.new_zeros(shape),
            heading=history.heading.new_zeros(shape),
            velocity=history.velocity.new_zeros(*shape, 2),
            valid=history.valid.new_zeros(shape),
        )
        acts = torch.zeros_like(state.controlled)
        for group, part in zip(self._groups, parts, strict=True):
            where = (list(group.worlds), slice(part.num_agents))
            acts[where] = group.acts
            for name in ("xy", "z", "heading", "velocity", "valid"):
                getattr(motion, name)[where] = getattr(part, name)
        return motion, acts


def _view(group: _Group, state: SimState) -> SimState:
    """Shows the policy its worlds, as if it were alone in them."""
    history, step = state.history, state.step
    if not _is_everything(group, state):
        worlds, num_agents = list(group.worlds), group.drives.shape[-1]
        history = history.map(lambda tensor: tensor[worlds][:, :num_agents])
        step = step[worlds]
    return SimState(
        scenario=group.scenario,
        history=history,
        step=step,
        controlled=group.drives,
        last_action=group.last_action,
    )


def _is_everything(group: _Group, state: SimState) -> bool:
    everything = group.worlds == tuple(range(state.controlled.shape[0]))
    return everything and group.drives.shape == state.controlled.shape


def _no_token(drives: Bool[Tensor, "worlds agents"]) -> Action:
    data = torch.zeros_like(drives, dtype=torch.int64)
    return Action(data=data, valid=torch.zeros_like(drives))


def _take(tree: Tree, places: Sequence[int]) -> Tree:
    return type(tree).stack([tree.select(place) for place in places])
