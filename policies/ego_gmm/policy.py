"""The ego policy: who drives the sdc."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from catk_sim.datatypes import Action, SimState
from catk_sim.dynamics import PoseDynamics
from catk_sim.tokens import MotionVocabulary
from policies.ego_gmm.mixture import PoseMixture
from policies.ego_gmm.model import EgoGMM, last_move, of_sdc
from policies.smart.map_tokens import MapTokens
from policies.smart.model import SMARTMemory
from policies.smart.policy import SMARTPolicy, StartMemory

PoseSampler = Callable[[PoseMixture, Generator | None], Float[Tensor, "*batch 3"]]
"""Chooses a pose of each mixture."""


@dataclass(frozen=True, kw_only=True)
class ModeSampler:
    """Samples a pose among those of the most likely modes.

    The default is that of catk's validation (arXiv:2412.05334): in effect the mean of the most
    likely mode.
    """

    k: int = 3
    """Modes that may be chosen from."""

    temperature: float = 1e-3
    """Divides their logits."""

    std_scale: float = 1e-3
    """Multiplies the standard deviations."""

    def __call__(
        self, mixture: PoseMixture, generator: Generator | None
    ) -> Float[Tensor, "*batch 3"]:
        """Draws a pose from each mixture."""
        return mixture.sample(
            self.k, temperature=self.temperature, std_scale=self.std_scale, generator=generator
        )


@dataclass(frozen=True, kw_only=True)
class PeakSampler:
    """Takes the peak of the blurred density, and draws nothing. Not in catk."""

    bandwidth: float
    """See `PoseMixture.peak`."""

    def __call__(
        self, mixture: PoseMixture, generator: Generator | None
    ) -> Float[Tensor, "*batch 3"]:
        """Returns the peak of each mixture."""
        return mixture.peak(self.bandwidth)


class EgoGMMPolicy:
    """Drives the sdc by poses that the mixture finds likely, and nobody else.

    Records no gradients, and leaves the model in its mode: call `model.eval()` before.

    Args:
        model: The network.
        sampler: Chooses a pose; by default a `PeakSampler` if the model's configuration has a
            bandwidth, else a `ModeSampler`.
    """

    dynamics = PoseDynamics()

    def __init__(self, model: EgoGMM, sampler: PoseSampler | None = None) -> None:
        self.model = model
        self.sampler = _default_sampler(model) if sampler is None else sampler
        self._encoder = SMARTPolicy(model.encoder, model.vocabulary)

    @property
    def vocabulary(self) -> MotionVocabulary:
        """The motion tokens that the network reads, on its device."""
        return self._encoder.vocabulary

    def init(self, state: SimState, *, map_tokens: MapTokens | None = None) -> StartMemory:
        """Reads the map and the history, up to the current state."""
        return self._encoder.init(state, map_tokens=map_tokens)

    @torch.no_grad()
    def mixture(
        self, state: SimState, memory: StartMemory | SMARTMemory
    ) -> tuple[PoseMixture, SMARTMemory]:
        """Tells where the sdc may go; arbitrary where it is not there."""
        # Poses are no tokens: the encoder matches everybody's last half second itself.
        nothing = Action(
            data=torch.zeros_like(state.controlled, dtype=torch.int64),
            valid=torch.zeros_like(state.controlled),
        )
        features, memory = self._encoder.logits(state.replace(last_action=nothing), memory)
        agents = state.scenario.agents
        values = (of_sdc(value, agents) for value in (features, *last_move(memory.past)))
        return self.model.mixture(*values), memory

    @torch.no_grad()
    def act(
        self, state: SimState, memory: StartMemory | SMARTMemory, generator: Generator | None
    ) -> tuple[Action, SMARTMemory]:
        """Samples a pose for the sdc. The others do not act."""
        mixture, memory = self.mixture(state, memory)
        pose = self.sampler(mixture, generator)
        is_sdc = state.scenario.agents.is_sdc
        data = torch.where(is_sdc[..., None], pose[..., None, :], 0.0)
        return Action(data=data, valid=is_sdc & memory.past.valid[..., -1]), memory


def _default_sampler(model: EgoGMM) -> PoseSampler:
    bandwidth = model.mixture_config.bandwidth
    return PeakSampler(bandwidth=bandwidth) if bandwidth else ModeSampler()
