"""Submissions to the Waymo Open Sim Agents Challenge.

python -m trainers.submit POLICY --data PATH --output FILE.tar.gz --metadata.account-name ...

The policy drives all agents that are valid at the current step, 32 times in every scenario of the
data. What the server would reject is refused before it is written, and the archive is read back and
checked once more. Upload it at https://waymo.com/open/challenges. To score one locally, if the log
has a future: python -m catk_sim.submission FILE.tar.gz PATH
"""

from collections.abc import Iterator

import torch
import tyro
from rich.console import Console
from tqdm import tqdm

from catk_sim.command import DEBUG
from catk_sim.datasets.scenario_dataset import prepare_if_needed
from catk_sim.datatypes import Scenario
from catk_sim.rollout import Policy
from catk_sim.submission import (
    ScenarioRollouts,
    check_rollouts,
    simulated_rollouts,
    submitted_scenarios,
    write_submission,
)
from trainers.benchmark import Benchmark, drive
from trainers.cli import run_trainer
from trainers.configs import SubmitConfig
from trainers.evaluate import load_policy
from trainers.loop import pick_device


def drive_for_submission(
    policy: Policy, benchmark: Benchmark
) -> Iterator[tuple[Scenario, ScenarioRollouts]]:
    """Lets a policy drive, and takes out what is submitted, scenario by scenario."""
    with tqdm(total=len(benchmark.indices), desc="submit", unit="scenario") as bar:
        for batch, driven in drive(policy, benchmark):
            for scenario, rollouts in simulated_rollouts(driven.simulated, batch):
                yield scenario, rollouts
                bar.update()


def submit(config: SubmitConfig) -> int:
    """Writes a submission and checks what was written. Returns how many scenarios it holds."""
    device = pick_device(config.device)
    policy = load_policy(config.policy, config.rollouts, device)
    scenarios = prepare_if_needed(config.data, config.cache)
    benchmark = Benchmark(
        scenarios=scenarios,
        indices=range(len(scenarios)),
        rollouts=config.rollouts,
        seed=config.seed,
        device=device,
    )
    config.output.parent.mkdir(parents=True, exist_ok=True)
    write_submission(
        config.output,
        config.metadata,
        drive_for_submission(policy, benchmark),
        num_scenarios=len(scenarios),
    )
    for scenario, rollouts in submitted_scenarios(config.output, scenarios, config.metadata):
        check_rollouts(rollouts, scenario)
    return len(scenarios)


def main(args: list[str]) -> None:
    """Writes the submission that the command line describes."""
    config = tyro.cli(
        SubmitConfig,
        args=args,
        prog="python -m trainers.submit",
        description=f"{__doc__}\n{DEBUG}",
    )
    torch.set_num_threads(config.cpu_threads)
    num_scenarios = submit(config)
    size = config.output.stat().st_size / 1e6
    Console(emoji=False).print(
        f"{config.output}: {num_scenarios} scenarios, {size:.1f} MB, read back and checked",
        soft_wrap=True,
        highlight=False,
    )


if __name__ == "__main__":
    run_trainer(main)
