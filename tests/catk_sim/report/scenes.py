"""Reports that are made by hand, and what a reader's browser would read in them."""

import base64
import gzip
import json
from typing import Any

import numpy as np
import torch

from catk_sim.constants import CURRENT_STEP
from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.datatypes import Scenario
from catk_sim.report import Choices, Drive, Figure, Histogram, Measure, Report, ReportScene

DECISIONS, TOP = 16, 3


def scenario_of(seed: int = 0) -> Scenario:
    return generate_scenario(seed).to(torch.float32)


def drive_of(scenario: Scenario, *, num_rollouts: int = 2, ahead: float = 0.0) -> Drive:
    """The log, but the sdc is driven `ahead` m further east from the current step on."""
    log = scenario.log
    step = torch.arange(log.num_steps)
    moved = log.xy + torch.tensor([ahead, 0.0]) * (step > CURRENT_STEP)[:, None]
    simulated = log.replace(xy=moved).repeat(num_rollouts)
    num_agents = log.num_agents
    controlled = scenario.agents.is_sdc
    flags = torch.zeros(simulated.valid.shape, dtype=torch.bool)
    shape = (num_rollouts, DECISIONS, num_agents, TOP)
    return Drive(
        simulated=simulated.where(controlled, log.repeat(num_rollouts)),
        controlled=controlled,
        collided=flags.clone().index_fill_(2, torch.tensor([20, 21, 40]), True),
        offroad=flags,
        figures={"ade": 1.5, "collision_rate": float("nan")},
        choices=Choices(
            label=torch.arange(TOP).expand(shape).clone(),
            probability=torch.tensor([0.5, 0.3, 0.2]).expand(shape).clone(),
            offset=torch.tensor([[5.0, 0.0], [4.0, 1.0], [0.0, 0.0]]).expand(*shape, 2).clone(),
        ),
    )


def report_of(scenarios: list[Scenario], title: str = "A report") -> Report:
    scenes = [
        ReportScene(
            scenario=scenario,
            drives={"one": drive_of(scenario), "two": drive_of(scenario, ahead=3)},
        )
        for scenario in scenarios
    ]
    per_scenario = {
        scenario.scenario_id[0]: {"one": {"ade": 1.0 + row}, "two": {"ade": 2.0 - row}}
        for row, scenario in enumerate(scenarios)
    }
    return Report(
        title=title,
        facts={"data": "synthetic"},
        measures={
            "ade": Measure(title="ADE", unit="m", better="down"),
            "collision_rate": Measure(title="collision", better="down"),
        },
        totals={
            "one": {"ade": Figure(mean=1.5, low=1.25, high=1.75)},
            "two": {"ade": Figure(mean=2.5), "collision_rate": Figure(mean=float("nan"))},
        },
        per_scenario=per_scenario,
        histograms=[
            Histogram(
                title="speed (m/s)",
                edges=np.linspace(0, 10, 5),
                counts={"log": np.array([1, 2, 3, 0]), "one": np.array([2, 2, 2, 0])},
            )
        ],
        scenes=scenes,
        remarks=["One scenario was left out."],
    )


def decode(text: str) -> Any:
    """Reads a scene as `scene.js` does, up to the sums."""
    return json.loads(gzip.decompress(base64.b64decode(text)))
