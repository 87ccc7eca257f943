"""Closed-loop evaluation of policies.

python -m trainers.evaluate POLICY [POLICY ...] --data PATH --output DIR

A policy is a folder that a trainer saved (its run's bc or catk), or a name of `policies.registry`.
All scenarios of the data are driven, up to --rollouts.max-scenarios: give data that the policies
have not learnt from.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from catk_sim.datasets.batching import collate
from catk_sim.datasets.scenario_dataset import prepare_if_needed
from catk_sim.datasets.whole_file import whole_file
from catk_sim.datatypes import Rollout, Scenario
from catk_sim.metrics.summary import RolloutSummary, summarize_rollouts
from catk_sim.rollout import Policy, rollout
from catk_sim.tokens import MotionVocabulary
from policies.checkpoint import load_checkpoint
from policies.registry import make_policy
from policies.smart.model import SMART
from policies.smart.policy import SMARTPolicy, TopK
from trainers.cli import run_command
from trainers.configs import EvaluationConfig, RolloutConfig
from trainers.loop import pick_device, seed_of
from trainers.run import Run
from trainers.scenes import Scenarios

Figures = dict[str, dict[str, float]]
"""What is measured, by group of agents and by name. See `RolloutSummary.table`."""

COLUMNS = {
    "ADE (m)": ("all", "ade"),
    "minADE (m)": ("all", "min_ade"),
    "collision": ("all", "collision_rate"),
    "off-road, vehicles": ("vehicle", "offroad_rate"),
    "ADE, vehicles (m)": ("vehicle", "ade"),
    "ADE, pedestrians (m)": ("pedestrian", "ade"),
    "ADE, cyclists (m)": ("cyclist", "ade"),
}
"""What the printed table shows: the heading, and the group and name of the figure."""

VALIDATED_SCENARIOS = 8
"""Scenarios that a validation during training drives."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What policies are measured on.

    Attributes:
        scenarios: The data.
        indices: Which of them, in this order.
        rollouts: How many rollouts, and how many scenarios at a time.
        seed: Seed of the policies' draws, which are the same for all.
        device: Where it is simulated.
    """

    scenarios: Scenarios
    indices: Sequence[int]
    rollouts: RolloutConfig
    seed: int
    device: torch.device

    def batch(self, indices: Sequence[int]) -> Scenario:
        """Reads some of the scenarios, as a batch ready to simulate."""
        scenarios = [self.scenarios[index] for index in indices]
        return collate(scenarios).to(torch.float32).to(self.device)


def drive(policy: Policy, benchmark: Benchmark) -> Iterator[tuple[Scenario, Rollout]]:
    """Lets a policy drive all agents that are valid at the current step, batch by batch."""
    size, indices = benchmark.rollouts.batch_size, benchmark.indices
    for number, start in enumerate(range(0, len(indices), size)):
        batch = benchmark.batch(indices[start : start + size])
        generator = torch.Generator(benchmark.device)
        generator.manual_seed(seed_of(benchmark.seed, "evaluate", number))
        with torch.no_grad():
            yield (
                batch,
                rollout(
                    policy,
                    batch,
                    num_rollouts=benchmark.rollouts.num_rollouts,
                    generator=generator,
                ),
            )


def measure(
    policy: Policy, benchmark: Benchmark, *, progress: Callable[[int], object] = lambda _: None
) -> RolloutSummary:
    """Measures a policy in closed loop.

    Args:
        policy: Who drives.
        benchmark: What it is measured on.
        progress: Is told how many scenarios were just done.
    """
    summaries = []
    for batch, driven in drive(policy, benchmark):
        summary = summarize_rollouts(driven.simulated, batch, driven.final.controlled[0])
        summaries.append(summary.to("cpu"))
        progress(batch.batch_size)
    return RolloutSummary.cat(summaries)


def evaluate(policies: Mapping[str, Policy], benchmark: Benchmark) -> dict[str, RolloutSummary]:
    """Measures policies, by the names that results go under, on the same benchmark."""
    results = {}
    total = len(policies) * len(benchmark.indices)
    with tqdm(total=total, desc="evaluate", unit="scenario") as bar:
        for name, policy in policies.items():
            results[name] = measure(policy, benchmark, progress=bar.update)
    return results


def held_out_benchmark(run: Run) -> Benchmark:
    """Tells what the policies of a run are measured on: the scenarios that it holds out."""
    rollouts = run.config.rollouts
    return Benchmark(
        scenarios=run.held_out.scenarios,
        indices=run.held_out.indices[: rollouts.max_scenarios],
        rollouts=rollouts,
        seed=run.config.seed,
        device=run.device,
    )


def validation_numbers(run: Run, model: SMART) -> dict[str, float]:
    """Measures a policy in training on the first held-out scenarios, one rollout each."""
    whole = held_out_benchmark(run)
    rollouts = replace(whole.rollouts, num_rollouts=1)
    few = replace(whole, indices=whole.indices[:VALIDATED_SCENARIOS], rollouts=rollouts)
    was_training = model.training
    figures = measure(sampled(model.eval(), rollouts), few).table()
    model.train(was_training)
    return {
        "closed_loop_ade": figures["all"]["ade"],
        "collision_rate": figures["all"]["collision_rate"],
        "vehicle_offroad_rate": figures["vehicle"]["offroad_rate"],
    }


def sampled(model: SMART, config: RolloutConfig) -> SMARTPolicy:
    """Makes the policy that samples as a configuration says."""
    sampler = TopK(k=config.top_k, temperature=config.temperature)
    return SMARTPolicy(model, model.vocabulary, sampler)


def load_policy(name: str, config: RolloutConfig, device: torch.device) -> Policy:
    """Loads a policy from a folder, or makes one by its name.

    Raises:
        ValueError: There is neither such a folder nor such a name.
    """
    if Path(name).exists():
        return sampled(load_checkpoint(name).to(device), config)
    if name == "random_token":
        return make_policy(name, vocabulary=MotionVocabulary.default().to(device))
    return make_policy(name)


def describe(data: str, benchmark: Benchmark, num_scenarios: int) -> str:
    """Tells in one line what was measured on."""
    return (
        f"{len(benchmark.indices)} of {num_scenarios} scenarios of {data}, "
        f"{benchmark.rollouts.num_rollouts} rollouts each, seed {benchmark.seed}"
    )


def print_table(figures: Mapping[str, Figures], caption: str) -> None:
    """Prints one line for each policy."""
    table = Table(caption=caption, caption_justify="left")
    table.add_column("policy", no_wrap=True, min_width=max(map(len, figures)))
    for heading in COLUMNS:
        table.add_column(heading, justify="right")
    for name, groups in figures.items():
        values = [groups[group][figure] for group, figure in COLUMNS.values()]
        table.add_row(name, *(f"{value:.3f}" for value in values))
    # Narrow terminals may not cut numbers off.
    console = Console()
    Console(width=max(console.width, 110)).print(table)


def result_record(data: str, benchmark: Benchmark, figures: Mapping[str, Figures]) -> object:
    """Makes what `metrics.json` holds."""
    return {
        "data": data,
        "scenarios": len(benchmark.indices),
        "rollouts": asdict(benchmark.rollouts),
        "seed": benchmark.seed,
        "policies": figures,
    }


def write_json(path: Path, content: object) -> None:
    """Writes a JSON file, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(_without_nan(content), indent=2, allow_nan=False) + "\n")


def _without_nan(content: Any) -> Any:
    """Replaces what was measured on nothing by null: JSON has no NaN."""
    if isinstance(content, dict):
        return {name: _without_nan(value) for name, value in content.items()}
    return None if isinstance(content, float) and math.isnan(content) else content


def main(args: list[str]) -> None:
    """Evaluates the policies that the command line names."""
    config = tyro.cli(
        EvaluationConfig, args=args, prog="python -m trainers.evaluate", description=__doc__
    )
    torch.set_num_threads(config.cpu_threads)
    device = pick_device(config.device)
    scenarios = prepare_if_needed(config.data, config.cache, on_error=config.on_error)
    benchmark = Benchmark(
        scenarios=scenarios,
        indices=range(min(len(scenarios), config.rollouts.max_scenarios)),
        rollouts=config.rollouts,
        seed=config.seed,
        device=device,
    )
    policies = {name: load_policy(name, config.rollouts, device) for name in config.policies}
    results = evaluate(policies, benchmark)
    figures = {name: summary.table() for name, summary in results.items()}
    print_table(figures, describe(config.data, benchmark, len(scenarios)))
    write_json(config.output / "metrics.json", result_record(config.data, benchmark, figures))


if __name__ == "__main__":
    run_command(main)
