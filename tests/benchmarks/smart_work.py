"""The work that `test_smart.py` measures, each piece in a process of its own.

Weights are random. In the open-loop pass states of the last mark are not read.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from catk_sim.datasets import open_scenarios
from catk_sim.datatypes import Scenario
from catk_sim.rollout import rollout, sim_agents
from catk_sim.tokens import MotionVocabulary
from policies.smart.config import SMARTConfig
from policies.smart.model import SMART
from policies.smart.nodes import AgentNodes
from policies.smart.policy import SMARTPolicy
from trainers.bc import behavior_cloning_loss
from trainers.catk import RolloutOracle, catk_loss
from trainers.cli import ask_for_large_pages
from trainers.configs import FitConfig
from trainers.optimizer import AdamW
from trainers.scenes import Scene, collate_scenes, make_scene

CONFIG = FitConfig(label_smoothing=0.1)
ROLLOUTS = 32


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a piece of work costs."""

    cpu_seconds: float
    wall_seconds: float
    peak_gigabytes: float
    note: str


def read_scenario(data: str) -> Scenario:
    scenario = next(iter(open_scenarios(data))).to(torch.float32)
    log, present = scenario.log, sim_agents(scenario)
    return scenario.replace(log=log.replace(valid=log.valid & present[:, None]))


def preprocessing(data: str, model: SMART) -> tuple[Callable[[], object], str]:
    """From the bytes of a file to what a model reads, the map as tokens included."""

    def prepare() -> Scene:
        return make_scene(next(iter(open_scenarios(data))), model.vocabulary)

    scene = prepare()
    states = int(scene.tokenized.tokens.valid.sum())
    return prepare, f"{int(scene.map_tokens.valid.sum())} map tokens, {states} states"


def bc_step(data: str, model: SMART) -> tuple[Callable[[], object], str]:
    """Forward, loss, backward, clipping and AdamW."""
    scene = collate_scenes([make_scene(read_scenario(data), model.vocabulary)])
    note, loss = edges(model, scene), partial(behavior_cloning_loss, model, scene, CONFIG)
    return training_step(model, list(model.parameters()), lambda: loss()[0]), note


def catk_step(data: str, model: SMART) -> tuple[Callable[[], object], str]:
    """The same on the states of a rollout (K = 32), which is included; the rest is frozen."""
    scene = collate_scenes([make_scene(read_scenario(data), model.vocabulary)])
    oracle = RolloutOracle(model.vocabulary, 32, torch.device("cpu"))
    trained = model.fine_tuning_parameters()
    model.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    relations = [(seen.to_map, seen.to_agents) for seen in oracle.drive(model, scene).record]
    counts = [
        sum(edge.neighbors.num_edges for edge in kind) for kind in zip(*relations, strict=True)
    ]
    loss = partial(catk_loss, model, scene, oracle, CONFIG)
    step = training_step(model, trained, lambda: loss()[0])
    return step, f"{counts[1]} agent-agent, {counts[0]} map-agent edges"


def rollouts(data: str, model: SMART) -> tuple[Callable[[], object], str]:
    """Eight seconds at 10 Hz, sampled among the top 48; the reading of the map included."""
    scenario, policy = read_scenario(data), SMARTPolicy(model.eval(), model.vocabulary)
    generator = torch.Generator().manual_seed(0)
    agents = int(sim_agents(scenario).sum())
    return partial(
        rollout, policy, scenario, num_rollouts=ROLLOUTS, generator=generator
    ), f"{agents} agents"


WORK = {
    "preprocessing": preprocessing,
    "BC step": bc_step,
    "CAT-K step": catk_step,
    "32 rollouts": rollouts,
}


def training_step(
    model: SMART, parameters: list[nn.Parameter], loss: Callable[[], Tensor]
) -> Callable[[], None]:
    optimizer = AdamW(parameters, CONFIG.optimizer)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(parameters, CONFIG.optimizer.gradient_clip)
        optimizer.step()

    return step


@torch.no_grad()
def edges(model: SMART, scene: Scene) -> str:
    """Counts the edges of an open-loop pass over all 18 marks."""
    tokens, agents = scene.tokenized.tokens, scene.scenario.agents
    index = torch.zeros(1, dtype=torch.int64)
    nodes = AgentNodes.from_padded(tokens, agents, torch.zeros_like(tokens.xy), index)
    decoder = model.decoder.eval()
    seen = decoder.observe(nodes, model.remember_map(scene.map_tokens))
    relations = (decoder.relate_to_past(nodes), seen.to_agents, seen.to_map)
    counts = [relation.neighbors.num_edges for relation in relations]
    return f"{counts[0]} temporal, {counts[1]} agent-agent, {counts[2]} map-agent edges"


def measure(data: str, work: str, size: str, threads: int, rounds: int) -> Cost:
    """Runs a piece of work a few times, after a first time if it is short; keeps the least."""
    ask_for_large_pages()  # As all trainers do.
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = SMART(SMARTConfig.preset(size), MotionVocabulary.default())
    run, note = WORK[work](data, model)
    if work != "32 rollouts":
        run()
    cpu, wall = [], []
    for _ in range(rounds):
        cpu_start, wall_start = time.process_time(), time.perf_counter()
        run()
        cpu.append(time.process_time() - cpu_start)
        wall.append(time.perf_counter() - wall_start)
    status = Path("/proc/self/status").read_text()
    kilobytes = int(status.split("VmHWM:")[1].split()[0])
    return Cost(
        cpu_seconds=min(cpu),
        wall_seconds=min(wall),
        peak_gigabytes=kilobytes * 1024 / 1e9,
        note=note,
    )


if __name__ == "__main__":
    data_, work_, size_, threads_, rounds_ = sys.argv[1:]
    cost = measure(data_, work_, size_, int(threads_), int(rounds_))
    print(json.dumps(cost.__dict__))  # noqa: T201
