"""The ego policy's network: SMART's encoder, and a mixture of poses for the sdc alone."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from catk_sim.datatypes import AgentMetadata
from catk_sim.geometry import se2
from catk_sim.tokens import MotionVocabulary
from policies.ego_gmm.config import MixtureConfig
from policies.ego_gmm.mixture import PoseMixture
from policies.smart.config import SMARTConfig
from policies.smart.layers import MLP, initialise
from policies.smart.memory import Past
from policies.smart.model import SMART


class MixtureHead(nn.Module):
    """Makes mixtures of features.

    Args:
        hidden_dim: How many features.
        config: The shape of the mixture.
    """

    def __init__(self, hidden_dim: int, config: MixtureConfig) -> None:
        super().__init__()
        self.logits = MLP(hidden_dim, hidden_dim, config.num_modes)
        self.poses = MLP(hidden_dim, hidden_dim, config.num_modes * 3)
        log_std = torch.tensor([math.log(config.position_std), math.log(config.heading_std)])
        self.log_std = nn.Parameter(log_std, requires_grad=config.learn_std)
        self.apply(initialise)

    def forward(self, features: Float[Tensor, "*batch hidden"]) -> PoseMixture:
        """Makes a mixture of each row of features. Likelihoods want all digits: float32."""
        logits = self.logits(features).float()
        return PoseMixture(
            logits=logits,
            poses=self.poses(features).float().unflatten(-1, (-1, 3)),
            std=self.log_std.exp().expand(*logits.shape[:-1], 2),
        )


class EgoGMM(nn.Module):
    """Predicts the pose of the sdc half a second ahead (arXiv:2412.05334, its ego policy).

    Args:
        config: Sizes and ranges of the encoder.
        mixture: The shape of the mixture.
        vocabulary: The motion tokens that the encoder reads.
    """

    def __init__(
        self, config: SMARTConfig, mixture: MixtureConfig, vocabulary: MotionVocabulary
    ) -> None:
        super().__init__()
        self.mixture_config = mixture
        self.encoder = SMART(config, vocabulary)
        # The encoder's steps return features.
        self.encoder.register_module("head", nn.Identity())
        self.head = MixtureHead(config.hidden_dim, mixture)

    @classmethod
    def upon(cls, smart: SMART, mixture: MixtureConfig) -> "EgoGMM":
        """Makes a policy whose encoder starts as that of a trained SMART.

        Args:
            smart: What is taken, all but its head. It stays as it is.
            mixture: The shape of the mixture.
        """
        model = cls(smart.config, mixture, smart.vocabulary)
        weights = smart.state_dict()
        model.encoder.load_state_dict({name: weights[name] for name in model.encoder.state_dict()})
        return model

    @property
    def config(self) -> SMARTConfig:
        """Sizes and ranges of the encoder."""
        return self.encoder.config

    @property
    def vocabulary(self) -> MotionVocabulary:
        """The motion tokens that the encoder reads."""
        return self.encoder.vocabulary

    @property
    def curves(self) -> Float[Tensor, "curves points 2"]:
        """The map vocabulary (m)."""
        return self.encoder.curves

    def mixture(
        self,
        features: Float[Tensor, "*batch hidden"],
        moved: Float[Tensor, "*batch 2"],
        heading: Float[Tensor, "*batch"],
    ) -> PoseMixture:
        """Makes a mixture of each row of features.

        Args:
            features: What the encoder makes of an agent.
            moved: Its change of position since the mark before (m), zero where unknown.
            heading: Its heading (rad).
        """
        mixture = self.head(features)
        if not self.mixture_config.from_last_move:
            return mixture
        # Sideways it does not go on: what a vehicle drifted is no reason to drift on.
        pace = se2.to_local(moved, torch.zeros_like(moved), heading)[..., :1]
        ahead = nn.functional.pad(pace.to(mixture.poses.dtype), (0, 2))
        return mixture.replace(poses=mixture.poses + ahead[..., None, :])

    def fine_tuning_parameters(self) -> list[nn.Parameter]:
        """Lists what CAT-K trains: the decoder's attention and the head, but no deviations."""
        return [
            *self.encoder.decoder.blocks.parameters(),
            *self.head.logits.parameters(),
            *self.head.poses.parameters(),
        ]


def last_move(
    past: Past,
) -> tuple[Float[Tensor, "*batch agents 2"], Float[Tensor, "*batch agents"]]:
    """Tells how agents came to the latest mark of a memory, as `EgoGMM.mixture` wants it."""
    moved = past.xy[..., -1, :] - past.xy[..., -2, :]
    return moved.where(past.valid[..., -2, None], 0), past.heading[..., -1]


def of_sdc(values: Shaped[Tensor, "..."], agents: AgentMetadata) -> Shaped[Tensor, "..."]:
    """Picks what belongs to the sdc.

    Args:
        values: Of shape (*batch, agents, ...).
        agents: Who is the sdc.

    Returns:
        Values of shape (*batch, ...), arbitrary where a scenario has no sdc.
    """
    sdc = agents.sdc_index
    index = sdc.reshape(*sdc.shape, *(1,) * (values.dim() - sdc.dim()))
    return torch.take_along_dim(values, index, dim=sdc.dim()).squeeze(sdc.dim())
