"""The shape of the ego policy's Gaussian mixture."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """How the next pose is distributed."""

    num_modes: int = 16
    """Gaussians in the mixture."""

    position_std: float = 1.0
    """Standard deviation of x and of y (m). catk calls it a covariance and uses it as this."""

    heading_std: float = 0.1
    """Standard deviation of the heading's cosine and of its sine."""

    learn_std: bool = False
    """Whether behavior cloning learns the standard deviations. Fine-tuning never does."""

    assignment: Literal["soft", "hard"] = "soft"
    """Which modes are taught a pose: all, each by its share in the likelihood, or the nearest."""

    from_last_move: bool = False
    """Whether means are told from where the agent gets if it goes on, at the pace of the last half
    second and the way that it is heading. In catk they are told from where it is."""

    bandwidth: float = 0.0
    """The policy drives to the peak of the mixture's density, blurred by this (m). With 0 it drives
    to one of the three likeliest modes, as in catk's validation."""

    def __post_init__(self) -> None:
        if self.num_modes < 1:
            raise ValueError(f"num_modes must be at least 1, got {self.num_modes}")
        for name in ("position_std", "heading_std"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.bandwidth < 0:
            raise ValueError(f"bandwidth must be at least 0, got {self.bandwidth}")
