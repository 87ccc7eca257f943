from itertools import islice
from pathlib import Path

import pytest
import torch

from catk_sim.constants import CURRENT_STEP
from catk_sim.datasets import open_scenarios
from catk_sim.datatypes import Scenario
from catk_sim.report import Choices, Drive, Report, ReportScene, write_report
from tests.catk_sim.report.scenes import DECISIONS, report_of

TOP = 5
"""Tokens that an evaluation tells of each decision."""


def restless(scenario: Scenario, num_rollouts: int, generator: torch.Generator) -> Drive:
    """Everybody wanders off by chance, and chooses by chance: worse to tell than any policy."""
    log = scenario.log.repeat(num_rollouts)
    wander = 0.1 * torch.randn(log.xy.shape, generator=generator)
    turn = 0.02 * torch.randn(log.heading.shape, generator=generator)
    wander[..., : CURRENT_STEP + 1, :], turn[..., : CURRENT_STEP + 1] = 0, 0
    shape = (num_rollouts, DECISIONS, scenario.log.num_agents, TOP)
    probability = torch.rand(shape, generator=generator).softmax(-1)
    return Drive(
        simulated=log.replace(xy=log.xy + wander.cumsum(-2), heading=log.heading + turn.cumsum(-1)),
        controlled=scenario.agents.valid & scenario.log.valid[:, CURRENT_STEP],
        collided=torch.rand(log.valid.shape, generator=generator) > 0.98,
        offroad=torch.rand(log.valid.shape, generator=generator) > 0.98,
        figures={"ade": 1.0},
        choices=Choices(
            label=torch.randint(2048, shape, generator=generator),
            probability=probability.sort(descending=True).values,
            offset=5 * torch.randn(*shape, 2, generator=generator),
        ),
    )


@pytest.mark.slow
def test_twenty_scenes_of_four_rollouts_of_two_policies_stay_small(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    generated = [each.to(torch.float32) for each in islice(open_scenarios("synthetic"), 20)]
    empty = report_of([])
    scenes = [
        ReportScene(
            scenario=scenario,
            drives={name: restless(scenario, 4, generator) for name in ("BC", "CAT-K")},
        )
        for scenario in generated
    ]
    report = Report(**{**vars(empty), "scenes": scenes})
    assert write_report(report, tmp_path / "report.html").stat().st_size < 10_000_000
