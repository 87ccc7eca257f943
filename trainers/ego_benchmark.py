"""The ego policy on held-out scenarios, under the paper's protocol.

Zhang et al., arXiv:2412.05334, Table 3: the policy drives the sdc, everybody else replays the log,
told in tokens, and the sdc alone is measured. `trainers.evaluate --planner` measures more, and also
among traffic that reacts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS
from catk_sim.datatypes import Scenario, TensorTree, Trajectory
from catk_sim.dynamics import TokenDynamics
from catk_sim.metrics.collision import collision_indication
from catk_sim.metrics.displacement import average_displacement_error
from catk_sim.metrics.offroad import offroad_indication
from catk_sim.metrics.planning import Estimate, paired_differences, summarize
from catk_sim.rollout import Policy, rollout
from catk_sim.tokens import MotionVocabulary
from catk_sim.tokens.matching import prepare
from policies.checkpoint import load_ego_gmm
from policies.ego_gmm.model import EgoGMM, of_sdc
from policies.ego_gmm.policy import EgoGMMPolicy
from trainers.benchmark import Benchmark
from trainers.distributed import gather_shares, is_main, share
from trainers.evaluate import VALIDATED_SCENARIOS, held_out_benchmark, write_json
from trainers.run import Run
from trainers.seeds import seed_of

STAGES = {"BC": "bc", "CAT-K": "catk"}
"""The policies of a run: their names in tables, and their folders."""

Record = dict[str, str | float]


@dataclass(frozen=True, eq=False, kw_only=True)
class EgoOutcome(TensorTree):
    """How the sdc fared in each rollout of a batch of scenarios, or of one.

    Attributes:
        collision: 1 if its box overlaps that of another agent at some step, else 0.
        offroad: 1 if a corner of it is beyond a road edge at some step, else 0.
        ade: Average displacement from the log (m).
    """

    collision: Float[Tensor, " rollouts *batch"]
    offroad: Float[Tensor, " rollouts *batch"]
    ade: Float[Tensor, " rollouts *batch"]

    @classmethod
    def of(cls, simulated: Trajectory, scenario: Scenario) -> "EgoOutcome":
        """Measures rollouts of a batch of scenarios; the steps after the current one count."""
        agents = scenario.agents.repeat(simulated.valid.shape[0])
        collision = of_sdc(collision_indication(simulated, scenario).value, agents)
        offroad = of_sdc(offroad_indication(simulated, scenario).value, agents)
        ahead = slice(HISTORY_STEPS, None)
        future = simulated.slice(HISTORY_STEPS, simulated.num_steps)
        log = scenario.log.slice(HISTORY_STEPS, simulated.num_steps)
        return cls(
            collision=collision[..., ahead].amax(-1),
            offroad=offroad[..., ahead].amax(-1),
            ade=of_sdc(average_displacement_error(future, log), agents),
        )

    def records(self, scenario_id: tuple[str, ...]) -> list[Record]:
        """Lists a record for each scenario: means over rollouts, and the least displacement."""
        columns = {
            "collision": self.collision.mean(0),
            "offroad": self.offroad.mean(0),
            "ade": self.ade.mean(0),
            "min_ade": self.ade.amin(0),
        }
        return [
            {
                "scenario_id": name,
                **{key: column.view(-1)[row].item() for key, column in columns.items()},
            }
            for row, name in enumerate(scenario_id)
        ]


def replay_in_tokens(scenario: Scenario, vocabulary: MotionVocabulary) -> Scenario:
    """Puts everybody but the sdc where the log, told in tokens, has them.

    As in the paper, whose ego policy has never seen others move otherwise. It is what
    `TokenDynamics` does to the history, done to the whole log.
    """
    log, agents = scenario.log, scenario.agents
    prepared = prepare(log, agents)
    replayed = TokenDynamics(vocabulary).retell(prepared, agents)
    others = prepared.valid[..., CURRENT_STEP] & ~agents.is_sdc
    return scenario.replace(log=replayed.where(others, log))


def measure_ego(policy: Policy, vocabulary: MotionVocabulary, benchmark: Benchmark) -> list[Record]:
    """Lets a policy drive the sdc of each scenario of a benchmark, and measures it.

    Processes share the batches, and all get the records of all.
    """
    records: list[Record] = []
    for number in share(range(benchmark.num_batches)):
        batch = benchmark.simulated(benchmark.read(number))
        world = replay_in_tokens(batch, vocabulary)
        generator = torch.Generator(benchmark.device)
        generator.manual_seed(seed_of(benchmark.seed, "evaluate", number))
        with torch.no_grad():
            driven = rollout(
                policy,
                world,
                num_rollouts=benchmark.rollouts.num_rollouts,
                controlled=batch.agents.is_sdc,
                generator=generator,
            )
        records += EgoOutcome.of(driven.simulated, batch).records(batch.scenario_id)
    return [record for part in gather_shares([records]) for record in part]


class EgoValidation:
    """Measures an ego policy in training, on the first held-out scenarios of a run.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        whole = held_out_benchmark(run)
        self._benchmark = replace(whole, indices=whole.indices[:VALIDATED_SCENARIOS])

    def __call__(self, model: EgoGMM) -> dict[str, float]:
        """Drives the policy. Returns what is logged."""
        was_training = model.training
        policy = EgoGMMPolicy(model.eval())
        figures = summarize(measure_ego(policy, policy.vocabulary, self._benchmark))
        model.train(was_training)
        return {f"ego_{name}": estimate.mean for name, estimate in figures.items()}


def compare_ego(run: Run) -> None:
    """Measures both policies of a run, prints the table and writes it to the run's folder."""
    benchmark = held_out_benchmark(run)
    records: dict[str, list[Record]] = {}
    for name, stage in STAGES.items():
        policy = EgoGMMPolicy(load_ego_gmm(run.folder / stage).to(run.device))
        records[name] = measure_ego(policy, policy.vocabulary, benchmark)
    rows = {name: summarize(measured) for name, measured in records.items()}
    before, after = records.values()
    rows["difference"] = paired_differences(after, before)
    if not is_main():
        return
    write_json(run.folder / "metrics.json", {"records": records})
    _print_table(rows, len(benchmark.indices))


def _print_table(rows: Mapping[str, Mapping[str, Estimate]], num_scenarios: int) -> None:
    table = Table(
        caption=f"{num_scenarios} scenarios, others replay the log in tokens; 95 % intervals",
        caption_justify="left",
    )
    table.add_column("policy")
    measures = next(iter(rows.values()))
    for measure in measures:
        table.add_column(measure, justify="right")
    for name, row in rows.items():
        cells = [
            f"{row[key].mean:.3f} [{row[key].low:.3f}, {row[key].high:.3f}]" for key in measures
        ]
        table.add_row(name, *cells)
    Console(width=120, emoji=False).print(table)
