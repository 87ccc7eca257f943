"""Command: the long run, `python -m tests.fuzz --inputs 100000`."""

import resource
import sys
import warnings
from dataclasses import dataclass

import tyro

from tests.fuzz.campaign import Outcome, run
from tests.fuzz.targets import Target, targets


@dataclass(frozen=True, kw_only=True)
class FuzzConfig:
    """Reads damaged inputs and counts what they raise. Exits with 1 if anything is not ours."""

    inputs: int = 100_000
    """How many, shared out among the targets."""

    first_seed: int = 1_000_000
    """Inputs of other seeds are others."""

    memory_gib: float = 6.0
    """What may be allocated at most; what needs more is a fault."""

    seconds: int = 20
    """How long an input may take."""

    only: str = ""
    """Targets whose names hold this."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns its exit code."""
    config = tyro.cli(FuzzConfig, args=arguments)
    limit = int(config.memory_gib * 2**30)
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    chosen = [target for target in targets() if config.only in target.name]
    total = sum(target.share for target in chosen)
    outcomes = []
    for target in chosen:
        count = config.inputs * target.share // total
        seeds = range(config.first_seed, config.first_seed + count)
        outcomes.append(run(target, seeds, limit_seconds=config.seconds))
        _print(target, count, outcomes[-1])
    inputs = sum(outcome.counts.total() for outcome in outcomes)
    faults = sum(len(outcome.faults) for outcome in outcomes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(f"{inputs} inputs, {faults} faults, peak memory {peak:.2f} GiB\n")
    return 1 if faults else 0


def _print(target: Target, count: int, outcome: Outcome) -> None:
    told = ", ".join(f"{name} {times}" for name, times in outcome.counts.most_common())
    line = f"{target.name}: {count} inputs: {told}; slowest {outcome.slowest:.2f} s\n"
    sys.stdout.write(line)
    for seed, text in list(outcome.faults.items())[:5]:
        sys.stdout.write(f"  seed {seed}:\n{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
