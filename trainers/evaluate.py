"""Closed-loop evaluation of policies.

python -m trainers.evaluate POLICY [POLICY ...] --data PATH --output DIR

A policy is a folder that a trainer saved (its run's bc or catk), a name of `policies.registry`, or
yours: path/to/file.py:Policy or package.module:Policy. Arguments follow as ,key=value.
All scenarios of the data are driven, up to --rollouts.max-scenarios: give data that the policies
have not learnt from. Processes that `torchrun` starts share them.

python -m trainers.evaluate --planner PLANNER [--planner PLANNER ...] --traffic TRAFFIC --data PATH

evaluates who drives the ego alone; `--planner --help` tells more.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from catk_sim.command import DEBUG
from catk_sim.datasets.scenario_dataset import prepare_if_needed
from catk_sim.datasets.whole_file import whole_file
from catk_sim.metrics.sim_agents.realism import finite_or_none
from catk_sim.planning.loading import call_with, load_planner, parse_planner
from catk_sim.planning.planner import Planner
from catk_sim.rollout import Policy
from catk_sim.tokens import MotionVocabulary
from policies.checkpoint import load_any_checkpoint, load_checkpoint
from policies.ego_gmm.model import EgoGMM
from policies.ego_gmm.policy import EgoGMMPolicy
from policies.pretrained import folder_of
from policies.registry import POLICIES, load_sb3
from policies.smart.model import SMART
from policies.smart.policy import SMARTPolicy, TopK
from trainers.benchmark import Benchmark, Evaluator
from trainers.cli import run_trainer
from trainers.configs import EvaluationConfig, RolloutConfig
from trainers.distributed import from_main, is_main, join
from trainers.loop import pick_device
from trainers.planning.config import PlannerEvaluationConfig, load_drivers, parse_traffic
from trainers.run import Run

Figures = dict[str, Any]
"""What is measured. See `Measured.figures`."""

COLUMNS = {
    "realism": ("sim_agents", "bucketed", "realism_meta_metric"),
    "kinematic": ("sim_agents", "bucketed", "kinematic_metrics"),
    "interactive": ("sim_agents", "bucketed", "interactive_metrics"),
    "map-based": ("sim_agents", "bucketed", "map_based_metrics"),
    "ADE (m)": ("all", "ade"),
    "minADE (m)": ("all", "min_ade"),
    "collision": ("all", "collision_rate"),
    "off-road, vehicles": ("vehicle", "offroad_rate"),
}
"""What the printed table shows: the heading, and where the figure is."""

VALIDATED_SCENARIOS = 8
"""Scenarios that a validation during training drives, at most."""

VALIDATED_ROLLOUTS = 4
"""Rollouts of each of them, at most."""


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


class Validation:
    """Measures a policy in training, on the first held-out scenarios of a run.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        whole = held_out_benchmark(run)
        self._rollouts = replace(
            whole.rollouts, num_rollouts=min(VALIDATED_ROLLOUTS, whole.rollouts.num_rollouts)
        )
        few = replace(whole, indices=whole.indices[:VALIDATED_SCENARIOS], rollouts=self._rollouts)
        self._evaluator = Evaluator(few, rules=whole.rollouts.metric_version, keep=True)

    def __call__(self, model: SMART) -> dict[str, float]:
        """Drives the policy. Returns what is logged. The realism is named with its version."""
        was_training = model.training
        policy = sampled(model.eval(), self._rollouts)
        measured = self._evaluator.measure({"policy": policy}, show_progress=False)["policy"]
        model.train(was_training)
        figures = measured.summary.table()
        numbers = {
            "closed_loop_ade": figures["all"]["ade"],
            "collision_rate": figures["all"]["collision_rate"],
            "vehicle_offroad_rate": figures["vehicle"]["offroad_rate"],
        }
        if measured.sim_agents is not None:
            version, scores = measured.sim_agents.version, measured.sim_agents.buckets()
            numbers |= {f"sim_agents_{version}/{name}": value for name, value in scores.items()}
        return numbers


def sampled(model: SMART, config: RolloutConfig) -> SMARTPolicy:
    """Makes the policy that samples as a configuration says."""
    sampler = TopK(k=config.top_k, temperature=config.temperature)
    return SMARTPolicy(model, model.vocabulary, sampler)


def load_policy(name: str, config: RolloutConfig, device: torch.device) -> Policy:
    """Loads a policy from a folder, or makes one by its name, or from anybody's module or file.

    Args:
        name: A folder, a name of `make_policy`, `package.module:Policy` or
            `path/to/file.py:Policy`. Arguments of all but folders follow as `,key=value`.
        config: How a policy of tokens samples.
        device: Where the policy is to be. One from somewhere else is left where it is.

    Raises:
        ValueError: There is neither such a folder nor such a name, or what is there is no policy,
            or does not take these arguments.
    """
    folder = folder_of(name)
    if folder.is_dir():
        return sampled(load_checkpoint(folder).to(device), config)
    spec, options = parse_planner(name)
    if ":" in spec:
        made = load_planner(spec, **options)
        if isinstance(made, Planner):
            raise ValueError(f"wanted a policy, but {name} is a planner: --planner {name} runs it")
        return made
    if folder_of(spec).is_dir():
        raise ValueError(f"{spec}, which a trainer saved, takes no arguments, got {name!r}")
    if spec.endswith(".zip"):
        return call_with(options, partial(load_sb3, spec), spec)
    if spec not in POLICIES:
        raise ValueError(
            f"wanted a folder that a trainer saved, path/to/file.py:Policy, package.module:Policy, "
            f"or one of {', '.join(POLICIES)}; got {spec!r}, which is no folder"
        )
    if spec == "random_token":
        options["vocabulary"] = MotionVocabulary.default().to(device)
    return call_with(options, POLICIES[spec], spec)


def load_ego_policy(name: str, config: RolloutConfig, device: torch.device) -> Policy:
    """Loads a policy that need not drive anyone but the sdc; otherwise like `load_policy`."""
    if Path(name).is_dir():
        model = load_any_checkpoint(name)
        if isinstance(model, EgoGMM):
            return EgoGMMPolicy(model.to(device))
    return load_policy(name, config, device)


def describe(data: str, benchmark: Benchmark, num_scenarios: int) -> str:
    """Tells in one line what was measured on, and by which version of Waymo's metric."""
    return (
        f"{len(benchmark.indices)} of {num_scenarios} scenarios of {data}, "
        f"{benchmark.rollouts.num_rollouts} rollouts each, seed {benchmark.seed}. Realism: Sim "
        f"Agents metric, version {benchmark.rollouts.metric_version}. ADE is a mean over agents, "
        "minADE one over scenarios."
    )


def print_table(figures: Mapping[str, Figures], caption: str) -> None:
    """Prints one line for each policy, and for how many scenarios the realism is not defined."""
    table = Table(caption=caption, caption_justify="left")
    table.add_column("policy", no_wrap=True, min_width=max(map(len, figures)))
    for heading in COLUMNS:
        table.add_column(heading, justify="right")
    for name, groups in figures.items():
        table.add_row(name, *(_cell(groups, *place) for place in COLUMNS.values()))
    # Narrow terminals may not cut numbers off.
    console = Console()
    console = Console(width=max(console.width, 130), emoji=False)
    console.print(table)
    unscored = next(iter(figures.values()))["sim_agents"]["unscored"]
    if unscored:
        scenario_id, reason = next(iter(unscored.items()))
        console.print(
            f"Realism is without {len(unscored)} scenarios that it is not defined for, such as "
            f"{scenario_id}: {reason}",
            highlight=False,
        )


def _cell(figures: Any, *place: str) -> str:
    for name in place:
        figures = figures.get(name, {})
    return f"{figures:.3f}" if isinstance(figures, float) else "-"


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
        unfinished.write_text(json.dumps(finite_or_none(content), indent=2, allow_nan=False) + "\n")


PLANNERS = """Closed-loop evaluation of who drives the ego.

A planner is the name of an entry point of the group `catk_sim.planners`, `package.module:Class`,
`path/to/file.py:Class`, a function of such a place, `process:COMMAND`, a folder that a trainer
saved, or a `.zip` of Stable-Baselines3. Arguments follow it as `,key=value`; `,python=INTERPRETER`
runs it in another environment.

A planner that fails in a scenario, by an error, a wrong result or by taking too long, is not asked
again there: the ego brakes, and the scenario has the score 0.
"""


def evaluate_egos(args: list[str]) -> None:
    """Evaluates the planners that the command line names."""
    # Here, as in `main`, so that training does without what draws reports.
    from trainers.planning.command import evaluate_planners

    asks = "-h" in args or "--help" in args
    config = tyro.cli(
        PlannerEvaluationConfig,
        args=["--help"] if asks else args,
        prog="python -m trainers.evaluate",
        description=f"{PLANNERS}\n{DEBUG}",
    )
    device = start(config)
    drivers = load_drivers(config, lambda name: load_ego_policy(name, config.rollouts, device))
    traffic = parse_traffic(config.traffic, lambda name: load_policy(name, config.rollouts, device))
    benchmark, _ = open_benchmark(config, device)
    record = evaluate_planners(config, benchmark, drivers, traffic)
    if is_main():
        write_json(config.output / "metrics.json", record)


def start(config: EvaluationConfig | PlannerEvaluationConfig) -> torch.device:
    """Prepares this process as a command asks, and tells where it computes."""
    torch.set_num_threads(config.cpu_threads)
    device = pick_device(config.device)
    join(device)
    return device


def open_benchmark(
    config: EvaluationConfig | PlannerEvaluationConfig, device: torch.device
) -> tuple[Benchmark, int]:
    """Opens the data of a command, and tells how many scenarios there are.

    Who drives is to be made before: data may take minutes to prepare, and a wrong name is to be
    refused at once.
    """
    # The metric reads the numbers of the file, which float32 would round.
    dtype = torch.float64
    scenarios = from_main(
        lambda: prepare_if_needed(config.data, config.cache, on_error=config.on_error, dtype=dtype)
    )
    benchmark = Benchmark(
        scenarios=scenarios,
        indices=range(min(len(scenarios), config.rollouts.max_scenarios)),
        rollouts=config.rollouts,
        seed=config.seed,
        device=device,
    )
    return benchmark, len(scenarios)


def main(args: list[str]) -> None:
    """Evaluates the policies, or the planners, that the command line names."""
    if any(arg == "--planner" or arg.startswith("--planner=") for arg in args):
        evaluate_egos(args)
        return
    from catk_sim.report import write_report
    from trainers.evaluation_report import Recorder, ReportSize, evaluation_report

    config = tyro.cli(
        EvaluationConfig,
        args=args,
        prog="python -m trainers.evaluate",
        description=f"{__doc__}\n{DEBUG}",
    )
    device = start(config)
    policies = {name: load_policy(name, config.rollouts, device) for name in config.policies}
    benchmark, num_scenarios = open_benchmark(config, device)
    recorder = Recorder(ReportSize(max_scenes=config.report_scenes), policies)
    evaluator = Evaluator(benchmark, rules=config.rollouts.metric_version)
    results = evaluator.measure(recorder.watched, watch=recorder)
    if not is_main():
        return
    figures = {name: measured.figures() for name, measured in results.items()}
    print_table(figures, describe(config.data, benchmark, num_scenarios))
    write_json(config.output / "metrics.json", result_record(config.data, benchmark, figures))
    report = evaluation_report(results, recorder, config.data, benchmark)
    Console(emoji=False).print(
        str(write_report(report, config.output / "report.html")), highlight=False
    )


if __name__ == "__main__":
    run_trainer(main)
