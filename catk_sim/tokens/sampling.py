"""Ways to choose a motion token from a policy's logits."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from catk_sim.tokens.distance import candidate_distance
from catk_sim.tokens.vocabulary import MotionVocabulary


def sample_top_k(
    logits: Float[Tensor, "*batch tokens"],
    k: int,
    *,
    temperature: float = 1.0,
    generator: Generator | None = None,
) -> Int[Tensor, "*batch"]:
    """Samples among the `k` most likely tokens, in proportion to their probabilities.

    Args:
        logits: The policy's score of every token.
        k: How many tokens may be chosen from. 1 is greedy.
        temperature: Divides the logits: below 1 the likely become likelier.
        generator: Source of randomness, on the device of the logits.
    """
    _check_k(k, logits)
    # Rows that `expand` made are equal: one is enough to choose from.
    copies = logits.dim() > 1 and logits.stride(0) == 0
    distinct = logits[:1] if copies else logits
    likely, tokens = top_k(distinct, k)
    shape = (*logits.shape[:-1], k)
    return _draw(likely.expand(shape), tokens.expand(shape), temperature, generator)


def sample_top_p(
    logits: Float[Tensor, "*batch tokens"],
    p: float,
    *,
    temperature: float = 1.0,
    generator: Generator | None = None,
) -> Int[Tensor, "*batch"]:
    """Samples among the fewest tokens that hold probability `p` together (nucleus sampling).

    Holtzman et al., "The Curious Case of Neural Text Degeneration", arXiv:1904.09751.

    Args:
        logits: The policy's score of every token.
        p: Probability that the tokens to choose from must reach, before the temperature applies.
        temperature: Divides the logits: below 1 the likely become likelier.
        generator: Source of randomness, on the device of the logits.
    """
    if not 0 < p <= 1:
        raise ValueError(f"p must be above 0 and at most 1, got {p}")
    ranked = logits.sort(dim=-1, descending=True)
    probability = ranked.values.softmax(-1)
    likelier = probability.cumsum(-1) - probability
    # The likeliest token always stays: what is likelier than it has probability zero.
    kept = ranked.values.masked_fill(likelier >= p, -torch.inf)
    return _draw(kept, ranked.indices, temperature, generator)


def closest_among_top_k(
    logits: Float[Tensor, "*batch tokens"],
    distance: Float[Tensor, "*batch tokens"],
    k: int,
    *,
    has_log: Bool[Tensor, "*batch"],
) -> Int[Tensor, "*batch"]:
    """Chooses, among the `k` most likely tokens, the one that ends nearest to the log (CAT-K).

    Zhang et al., "Closed-Loop Supervised Fine-Tuning of Tokenized Traffic Models", CVPR 2025,
    arXiv:2412.05334.

    Args:
        logits: The policy's score of every token.
        distance: How far (m) from the log every token would leave the agent.
        k: How many tokens may be chosen from. 1 is greedy; all of them ignores the policy.
        has_log: Whether the log has the agent at the end of the move. An agent without a log takes
            its most likely token.
    """
    _check_k(k, logits)
    likely, tokens = top_k(logits, k)
    return _nearest(tokens, likely, distance.gather(-1, tokens), has_log)


def closest_to_pose_among_top_k(
    logits: Float[Tensor, "*batch agents tokens"],
    vocabulary: MotionVocabulary,
    agent_type: Int[Tensor, "*batch agents"],
    xy_local: Float[Tensor, "*batch agents 2"],
    heading_local: Float[Tensor, "*batch agents"],
    k: int,
    *,
    has_log: Bool[Tensor, "*batch agents"],
    box_size: Float[Tensor, "*batch agents 2"] | None = None,
) -> Int[Tensor, "*batch agents"]:
    """Chooses as `closest_among_top_k` does, but measures only the `k` tokens in question.

    Args:
        logits: The policy's score of every token.
        vocabulary: The tokens.
        agent_type: `AgentType` of each agent.
        xy_local: The next logged position (m), in the frame of the agent's current pose.
        heading_local: The next logged heading (rad) in that frame.
        k: How many tokens may be chosen from. 1 is greedy; all of them ignores the policy.
        has_log: Whether the log has the agent at the end of the move. An agent without a log takes
            its most likely token.
        box_size: Length and width (m) of each agent; by default its type's.
    """
    _check_k(k, logits)
    likely, tokens = top_k(logits, k)
    distance = candidate_distance(
        vocabulary, agent_type, tokens, xy_local, heading_local, box_size=box_size
    )
    return _nearest(tokens, likely, distance, has_log)


def top_k(
    logits: Float[Tensor, "*batch tokens"], k: int
) -> tuple[Float[Tensor, "*batch k"], Int[Tensor, "*batch k"]]:
    """Finds the `k` largest logits and their tokens, in any order.

    Takes the `k` groups of tokens with the largest maxima first: no other group can hold one of
    the `k` largest. Choosing is slow, so few should be chosen from.
    """
    num_groups = logits.shape[-1] // _GROUP
    if logits.shape[-1] % _GROUP or 2 * k > num_groups:
        tokens = _chosen(logits, k)
        return logits.gather(-1, tokens), tokens
    best = _chosen(logits.unflatten(-1, (_GROUP, num_groups)).amax(-2), k)
    first = torch.arange(0, logits.shape[-1], num_groups, device=logits.device)
    # (*batch, members, groups), flattened
    members = (best[..., None, :] + first[:, None]).flatten(-2)
    values = logits.gather(-1, members)
    place = _chosen(values, k)
    return values.gather(-1, place), members.gather(-1, place)


_GROUP = 8


def _chosen(values: Float[Tensor, "*batch tokens"], k: int) -> Int[Tensor, "*batch k"]:
    """Finds the places of the `k` largest values, in any order."""
    if values.device.type != "cpu" or values.dtype != torch.float32:
        return values.topk(k, sorted=False).indices
    # NumPy partitions with vector instructions, torch does not.
    length = values.shape[-1]
    rows = values.detach().numpy().reshape(-1, length)
    least = np.partition(rows, length - k, axis=-1)[:, length - k]
    is_chosen = rows >= least[:, None]
    chosen = np.flatnonzero(is_chosen)
    if len(chosen) == k * len(rows):
        places = chosen.reshape(-1, k) - length * np.arange(len(rows))[:, None]
    else:  # In rows with equal values there may be more of them.
        clear = is_chosen.sum(-1) == k
        places = np.empty((len(rows), k), dtype=np.int64)
        places[clear] = np.flatnonzero(is_chosen[clear]).reshape(-1, k) % length
        places[~clear] = torch.from_numpy(rows[~clear]).topk(k, sorted=False).indices
    return torch.from_numpy(places).view(*values.shape[:-1], k)


def _nearest(
    tokens: Int[Tensor, "*batch k"],
    logits: Float[Tensor, "*batch k"],
    distance: Float[Tensor, "*batch k"],
    has_log: Bool[Tensor, "*batch"],
) -> Int[Tensor, "*batch"]:
    """Chooses the nearest token, and of equally near ones the likeliest."""
    # Without a log, all are equally near.
    distance = distance * has_log[..., None]
    is_farther = distance > distance.amin(-1, keepdim=True)
    # What is farther stays behind even what has probability zero.
    finite = logits.clamp(min=torch.finfo(logits.dtype).min)
    choice = finite.masked_fill(is_farther, -torch.inf).argmax(-1, keepdim=True)
    return tokens.gather(-1, choice).squeeze(-1)


def _draw(
    logits: Float[Tensor, "*batch k"],
    tokens: Int[Tensor, "*batch k"],
    temperature: float,
    generator: Generator | None,
) -> Int[Tensor, "*batch"]:
    if not temperature > 0:
        raise ValueError(f"the temperature must be above 0, got {temperature}")
    probability = (logits / temperature).softmax(-1).reshape(-1, logits.shape[-1])
    choice = torch.multinomial(probability, num_samples=1, generator=generator)
    return tokens.gather(-1, choice.view(*tokens.shape[:-1], 1)).squeeze(-1)


def _check_k(k: int, logits: Tensor) -> None:
    if not 1 <= k <= logits.shape[-1]:
        raise ValueError(f"k must be from 1 to the number of tokens, {logits.shape[-1]}, got {k}")
