"""A mixture of Gaussians over the pose that an agent takes next."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from catk_sim.datatypes import TensorTree
from catk_sim.tokens import corner_distance, sample_top_k

MEAN_SHIFTS = 10
"""Steps of the climb to a peak: each goes most of what is left."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PoseMixture(TensorTree):
    """Where an agent may be half a second later, in its own frame.

    Each mode is a normal distribution of x, y and of the cosine and sine of the heading, all
    independent. So distances of headings are chords, and the likelihood of a heading is not
    normalised on the circle.

    Attributes:
        logits: Scores of the modes.
        poses: Their means: x, y (m) and heading (rad).
        std: Standard deviation of x and y (m), and of cosine and sine.
    """

    logits: Float[Tensor, "*batch modes"]
    poses: Float[Tensor, "*batch modes 3"]
    std: Float[Tensor, "*batch 2"]

    def negative_log_likelihood(
        self, pose: Float[Tensor, "*batch 3"], assignment: Literal["soft", "hard"] = "soft"
    ) -> Float[Tensor, "*batch"]:
        """Scores a pose: the loss of the ego policy (arXiv:2412.05334).

        Args:
            pose: x, y (m) and heading (rad).
            assignment: With `hard`, the mode whose mean is nearest to the pose in x and y explains
                it alone, and is to be likely. In catk its probability has no part in that, so
                probabilities are never learnt.
        """
        joint = self.logits.log_softmax(-1) + self.log_densities(pose)
        if assignment == "soft":
            return -joint.logsumexp(-1)
        return -joint.gather(-1, self.nearest_mode(pose)[..., None]).squeeze(-1)

    def log_densities(self, pose: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch modes"]:
        """Returns the log of each mode's density at a pose."""
        std = self.std.repeat_interleave(2, dim=-1)[..., None, :]
        deviation = (_placement(pose)[..., None, :] - _placement(self.poses)) / std
        normalisation = std.log().sum(-1) + 2 * math.log(2 * math.pi)
        return -deviation.square().sum(-1) / 2 - normalisation

    def nearest_mode(self, pose: Float[Tensor, "*batch 3"]) -> Int[Tensor, "*batch"]:
        """Finds the mode whose mean is nearest to a pose in x and y."""
        return (self.poses[..., :2] - pose[..., None, :2]).norm(dim=-1).argmin(-1)

    def mean_of(self, mode: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch 3"]:
        """Returns the mean of a mode."""
        return torch.take_along_dim(self.poses, mode[..., None, None], dim=-2).squeeze(-2)

    def peak(self, bandwidth: float) -> Float[Tensor, "*batch 3"]:
        """Climbs from the likeliest mode to where the blurred density is highest.

        Narrow modes side by side share what lies between them, so that the likeliest of them may be
        to one side of what was taught. Blurred, they are one. Where others are far, it is the mode.
        By mean shift (Carreira-Perpinan, "Mode-finding for mixtures of Gaussian distributions",
        PAMI 2000), of the deviations from the modes alone.

        Args:
            bandwidth: Standard deviation of the blur of x and y (m). Cosine and sine are blurred as
                much relative to their own.
        """
        placements = _placement(self.poses)
        wider = (1 + (bandwidth / self.std[..., :1]) ** 2) ** 0.5
        std = (self.std * wider).repeat_interleave(2, dim=-1)[..., None, :]
        peak = _placement(self.mean_of(self.logits.argmax(-1)))
        for _ in range(MEAN_SHIFTS):
            exponent = -((peak[..., None, :] - placements) / std).square().sum(-1) / 2
            weight = (self.logits + exponent).softmax(-1)
            peak = (weight[..., None] * placements).sum(-2)
        return _pose(peak)

    def sample(
        self,
        k: int,
        *,
        temperature: float,
        std_scale: float,
        generator: Generator | None = None,
    ) -> Float[Tensor, "*batch 3"]:
        """Draws a pose.

        Args:
            k: Modes that may be chosen from, the most likely ones.
            temperature: Divides their logits.
            std_scale: Multiplies the standard deviations; with 0, means are drawn.
            generator: Source of randomness, on the mixture's device.
        """
        mode = sample_top_k(self.logits, k, temperature=temperature, generator=generator)
        mean = _placement(self.mean_of(mode))
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return _pose(mean + std_scale * self.std.repeat_interleave(2, -1) * noise)

    def closest_among_top_k(
        self,
        logged: Float[Tensor, "*batch 3"],
        k: int,
        *,
        has_log: Bool[Tensor, "*batch"],
        box_size: Float[Tensor, "*batch 2"],
    ) -> Float[Tensor, "*batch 3"]:
        """Chooses, among the means of the `k` most likely modes, the one nearest to the log.

        CAT-K for the ego policy (arXiv:2412.05334).

        Args:
            logged: The next logged pose, in the frame of the mixture.
            k: Modes that may be chosen from. 1 is greedy.
            has_log: Whether there is one. Else the most likely mode is taken.
            box_size: Length and width (m) of the box whose corners are compared.
        """
        # The most likely comes first.
        modes = self.logits.topk(k).indices
        means = torch.take_along_dim(self.poses, modes[..., None], dim=-2)
        distance = corner_distance(means, logged[..., None, :], box_size[..., None, :])
        choice = torch.where(has_log, distance.argmin(-1), 0)
        return torch.take_along_dim(means, choice[..., None, None], dim=-2).squeeze(-2)


def _placement(pose: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Tells a pose as x, y, cosine and sine."""
    x, y, heading = pose.unbind(-1)
    return torch.stack([x, y, heading.cos(), heading.sin()], dim=-1)


def _pose(placement: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3"]:
    """Tells a placement as x, y and heading."""
    x, y, cos, sin = placement.unbind(-1)
    return torch.stack([x, y, torch.atan2(sin, cos)], dim=-1)
