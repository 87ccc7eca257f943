"""What training minimises."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


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
    counts = weighted.flatten()
    return _CrossEntropy.apply(
        logits.reshape(-1, logits.shape[-1]).float(),
        label.flatten(),
        counts / counts.sum().clamp(min=1),
        label_smoothing,
    )


class _CrossEntropy(torch.autograd.Function):
    """The weighted sum of cross entropies, which keeps logits alone.

    Torch keeps their logarithms of softmax besides, and its gradient makes three tensors as large.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Float[Tensor, "moves tokens"],
        label: Int[Tensor, " moves"],
        weight: Float[Tensor, " moves"],
        label_smoothing: float,
    ) -> Float[Tensor, ""]:
        log_sum = logits.logsumexp(dim=-1)
        at_label = logits.gather(-1, label[:, None])[:, 0]
        loss = log_sum - torch.lerp(at_label, logits.mean(dim=-1), label_smoothing)
        ctx.save_for_backward(logits, log_sum, label, weight)
        ctx.label_smoothing = label_smoothing
        return (loss * weight).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        logits, log_sum, label, weight = ctx.saved_tensors
        smoothing = ctx.label_smoothing
        grad = (logits - log_sum[:, None]).exp_().sub_(smoothing / logits.shape[-1])
        at_label = grad.new_full((len(label), 1), smoothing - 1)
        grad.scatter_add_(-1, label[:, None], at_label)
        return grad.mul_((grads[0] * weight)[:, None]), None, None, None
