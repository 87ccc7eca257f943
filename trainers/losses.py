"""What training minimises."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional


def score_moves(
    head: nn.Module,
    features: Float[Tensor, "moves hidden"],
    label: Int[Tensor, " moves"],
    *,
    label_smoothing: float,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """Scores the moves that count under a policy.

    Args:
        head: Makes logits of features. It is large, so it only sees these moves.
        features: What the policy made of the states that the moves leave.
        label: The token to learn for each.
        label_smoothing: Probability that is spread over all tokens.

    Returns:
        The loss, the share of labels that the policy finds most likely, and the number of moves
        that both are means over.
    """
    logits = head(features)
    loss = next_token_cross_entropy(
        logits, label, torch.ones_like(label, dtype=torch.bool), label_smoothing=label_smoothing
    )
    accuracy = (logits.argmax(-1) == label).float().mean() if len(label) else loss.detach()
    return loss, {"accuracy": accuracy.item(), "moves": float(len(label))}


def next_token_cross_entropy(
    logits: Float[Tensor, "*batch tokens"],
    label: Int[Tensor, "*batch"],
    weighted: Bool[Tensor, "*batch"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Averages the cross entropy of the next token over the moves that count.

    Args:
        logits: Score of every token.
        label: The token to learn.
        weighted: Which moves count. Where none does the loss is 0, with gradient 0.
        label_smoothing: Probability that is spread over all tokens.
    """
    loss = functional.cross_entropy(
        logits.flatten(0, -2).float() if logits.dim() > 1 else logits.float(),
        label.flatten(),
        reduction="none",
        label_smoothing=label_smoothing,
    )
    counts = weighted.flatten()
    return (loss * counts).sum() / counts.sum().clamp(min=1)
