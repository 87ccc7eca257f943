"""Random scenes, already told in tokens."""

import math
from collections.abc import Callable

import torch

from catk_sim.datatypes import AgentMetadata, AgentType
from catk_sim.tokens import MotionTokens
from policies.smart.config import SMARTConfig
from policies.smart.map_tokens import LaneLight, MapTokens, PointType, PolygonType
from policies.smart.map_vocabulary import map_vocabulary
from policies.smart.model import SMART
from tests import scenes

VOCABULARY = scenes.arc_vocabulary()
Scene = tuple[MotionTokens, AgentMetadata, MapTokens]


def micro(dtype: torch.dtype = torch.float64) -> SMART:
    """A small model whose biases and norms matter, in evaluation mode."""
    torch.manual_seed(0)
    model = SMART(SMARTConfig.preset("micro"), VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def random_scene(
    seed: int,
    *,
    batch: tuple[int, ...] = (),
    num_agents: int = 5,
    num_map_tokens: int = 30,
    num_marks: int = 18,
    dtype: torch.dtype = torch.float64,
) -> Scene:
    """Agents of all types near a map, some of which come late, leave, or are padding."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*batch, *shape, generator=generator, dtype=dtype)

    def integers(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, (*batch, *shape), generator=generator)

    start = uniform(-15, 15, num_agents, 1, 2)
    steps = uniform(-3, 3, num_agents, num_marks, 2)
    # Some stand still, so that their motion is exactly zero.
    steps = steps * (uniform(0, 1, num_agents, 1, 1) > 0.2)
    tokens = MotionTokens(
        token=integers(VOCABULARY.num_tokens, num_agents, num_marks),
        xy=start + steps.cumsum(dim=-2),
        heading=uniform(-math.pi, math.pi, num_agents, num_marks),
        valid=_visible(integers, num_agents, num_marks),
    )
    kinds = integers(len(AgentType), num_agents)
    agents = scenes.agents_of([AgentType.VEHICLE] * num_agents)
    agents = agents.map(lambda tensor: tensor.expand(*batch, *tensor.shape))
    agents = agents.replace(type=kinds, size=uniform(0.5, 6, num_agents, 3))
    map_tokens = MapTokens(
        xy=uniform(-25, 25, num_map_tokens, 2),
        heading=uniform(-math.pi, math.pi, num_map_tokens),
        curve_local=uniform(0, 5, num_map_tokens, 3, 2),
        token=integers(map_vocabulary().shape[0], num_map_tokens),
        point_type=integers(len(PointType), num_map_tokens),
        polygon_type=integers(len(PolygonType), num_map_tokens),
        light=integers(len(LaneLight), num_map_tokens),
        valid=uniform(0, 1, num_map_tokens) > 0.1,
    )
    return tokens, agents, map_tokens


def _visible(
    integers: Callable[..., torch.Tensor], num_agents: int, num_marks: int
) -> torch.Tensor:
    """From a mark of the history on, to any mark; the last agent is padding."""
    mark = torch.arange(num_marks)
    enters, leaves = integers(2, num_agents, 1), integers(2 * num_marks, num_agents, 1) + 1
    valid = (mark >= enters) & (mark <= leaves)
    valid[..., -1, :] &= num_agents == 1
    return valid


def at(tokens: MotionTokens, mark: int) -> MotionTokens:
    """One mark."""
    return until(
        MotionTokens(
            token=tokens.token[..., mark:],
            xy=tokens.xy[..., mark:, :],
            heading=tokens.heading[..., mark:],
            valid=tokens.valid[..., mark:],
        ),
        1,
    )


def until(tokens: MotionTokens, stop: int) -> MotionTokens:
    """The marks before one."""
    return MotionTokens(
        token=tokens.token[..., :stop],
        xy=tokens.xy[..., :stop, :],
        heading=tokens.heading[..., :stop],
        valid=tokens.valid[..., :stop],
    )


def step_by_step(model: SMART, scene: Scene) -> torch.Tensor:
    """Logits at marks 1 to 16, made one after the other."""
    tokens, agents, map_tokens = scene
    memory, logits = model.remember(agents, map_tokens), []
    for mark in range(17):
        scores, memory = model.step(at(tokens, mark), agents, memory)
        logits.append(scores)
    return torch.stack(logits[1:], dim=-2)
