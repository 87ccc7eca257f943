"""Command: builds a motion vocabulary from scenarios.

python -m catk_sim.tokens.build --data PATH --output FILE
"""

import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from torch import Generator, Tensor
from tqdm import tqdm

from catk_sim.command import DEBUG, run_command
from catk_sim.datasets.sources import open_scenarios
from catk_sim.datatypes import Scenario
from catk_sim.tokens import motions
from catk_sim.tokens.kdisks import build_vocabulary
from catk_sim.tokens.vocabulary import MotionVocabulary, Provenance

Motions = Float[Tensor, "_ 6 3"]

_TYPES = ("vehicles", "pedestrians", "cyclists")


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What to build a vocabulary from, and how."""

    data: str
    """Scenarios: a WOMD or GPUDrive file, a folder, a glob, a cache, or `synthetic:COUNT`."""
    output: Path
    """The safetensors file to write."""
    num_tokens: int = 2048
    """Tokens of each type of agent."""
    tolerance: float = 0.05
    """Mean corner distance (m) within which motions become one token. Halved for a type whose
    motions run out."""
    seed: int = 2
    """Seed of all draws."""
    max_motions: int = 200_000
    """Distinct motions of each type to build from; of more, these many are drawn at random."""
    min_motions: int = 0
    """Types with fewer distinct motions are filled up to this with generated ones. By default none
    is, and too few motions for the tokens are an error."""
    generated: int = 0
    """Motions to generate for each type in any case."""
    mirror: bool = False
    """Whether to add each motion with left and right swapped."""
    stride: int = 1
    """Steps between the starts of two motions of an agent."""

    def __post_init__(self) -> None:
        least = {"num_tokens": 1, "max_motions": 1, "min_motions": 0, "generated": 0, "stride": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {getattr(self, name)}")
        if self.tolerance <= 0:
            raise ValueError(f"tolerance must be above 0, got {self.tolerance}")


class MotionSample:
    """A random sample of the distinct motions of a type, from a stream too long to keep.

    Every motion draws a number when it comes; the lowest are kept. So the sample is uniform, and
    does not depend on how the stream is cut.

    Args:
        limits: Motions beyond these are left out.
        capacity: Most motions to keep.
        generator: Source of randomness.
    """

    def __init__(self, limits: motions.MotionLimits, capacity: int, generator: Generator) -> None:
        self._limits = limits
        self._capacity = capacity
        self._generator = generator
        self._pending: list[Tensor] = []
        self._num_pending = 0

    def add(self, more: Float[Tensor, "_ 6 3"]) -> None:
        """Takes further motions in."""
        more = more[motions.is_plausible(more, self._limits)]
        draw = torch.rand(len(more), generator=self._generator)
        self._pending.append(torch.cat([more.flatten(1), draw[:, None]], dim=-1))
        self._num_pending += len(more)
        if self._num_pending > 2 * self._capacity:
            self._compact()

    def motions(self) -> Float[Tensor, "_ 6 3"]:
        """Returns the sample, in the order of the draws."""
        self._compact()
        return self._pending[0][:, :-1].unflatten(1, (-1, 3))

    def _compact(self) -> None:
        rows = torch.cat([torch.zeros(0, 19), *self._pending])
        rows = rows[rows[:, -1].argsort(stable=True)]
        kept = motions.distinct_index(rows[:, :-1].unflatten(1, (-1, 3)))[: self._capacity]
        self._pending = [rows[kept]]
        self._num_pending = len(kept)


def collect_motions(scenarios: Iterable[Scenario], config: BuildConfig) -> list[Motions]:
    """Samples the distinct motions of vehicles, pedestrians and cyclists from scenarios."""
    samples = [
        MotionSample(limits, config.max_motions, Generator().manual_seed(config.seed + row))
        for row, limits in enumerate(motions.LIMITS)
    ]
    for scenario in scenarios:
        cut = motions.cut_motions(scenario, stride=config.stride)
        for sample, of_type in zip(samples, cut, strict=True):
            sample.add(of_type)
            if config.mirror:
                sample.add(motions.mirror(of_type))
    return [sample.motions() for sample in samples]


def fill_up(logged: list[Motions], config: BuildConfig) -> tuple[list[Motions], list[int]]:
    """Adds generated motions: those asked for, and what a type lacks of `min_motions`.

    Returns:
        The motions of each type, and how many of them are generated.
    """
    counts = [max(config.generated, config.min_motions - len(of_type)) for of_type in logged]
    filled = []
    for row, (of_type, count) in enumerate(zip(logged, counts, strict=True)):
        generator = Generator().manual_seed(config.seed + row)
        made = motions.generate_motions(count, motions.LIMITS[row], generator)
        filled.append(torch.cat([of_type, made]))
    return filled, counts


def build(
    scenarios: Iterable[Scenario], config: BuildConfig
) -> tuple[MotionVocabulary, Provenance]:
    """Builds a vocabulary and tells where it comes from.

    Raises:
        ValueError: The scenarios have no motion at all, as in WOMD's test split, or a type has
            fewer than the tokens need.
    """
    logged = collect_motions(scenarios, config)
    if not any(len(of_type) for of_type in logged):
        raise ValueError(
            f"wanted motions of agents that are seen for {motions.MIN_VALID_STEPS} steps or more, "
            f"and {config.data} has none: WOMD's test split has no future to cut them from"
        )
    filled, num_generated = fill_up(logged, config)
    for name, of_type, count in zip(_TYPES, filled, num_generated, strict=True):
        if len(of_type) < config.num_tokens:
            raise ValueError(
                f"wanted {config.num_tokens} distinct motions of {name} or more, for as many "
                f"tokens, got {len(of_type) - count} from {config.data} and {count} generated: "
                "give more data, or min_motions, which fills up with generated ones"
            )
    vocabulary, tolerance = build_vocabulary(
        filled, num_tokens=config.num_tokens, tolerance=config.tolerance, seed=config.seed
    )
    return vocabulary, Provenance(
        source=config.data,
        num_motions=tuple(len(of_type) for of_type in filled),
        num_generated=tuple(num_generated),
        tolerance=tolerance,
        seed=config.seed,
        command=shlex.join(["python", "-m", "catk_sim.tokens.build", *sys.argv[1:]]),
        version=metadata.version("catk-sim"),
    )


def main(arguments: list[str]) -> None:
    """Runs the command line."""
    config = tyro.cli(
        BuildConfig,
        args=arguments,
        prog="python -m catk_sim.tokens.build",
        description=f"{__doc__} {DEBUG}",
    )
    scenarios = tqdm(open_scenarios(config.data), desc="scenarios", unit="scenario")
    vocabulary, provenance = build(scenarios, config)
    config.output.parent.mkdir(parents=True, exist_ok=True)
    vocabulary.save(config.output, provenance)
    console = Console(emoji=False)
    for row, name in enumerate(_TYPES):
        console.print(
            f"{name}: {config.num_tokens} tokens from {provenance.num_motions[row]} motions "
            f"({provenance.num_generated[row]} generated), {provenance.tolerance[row]:g} m apart"
        )
    console.print(f"{config.output}: digest {vocabulary.digest}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
