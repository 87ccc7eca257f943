"""What training minimises."""

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


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
