"""Memories: appending seldom copies, and never changes what was there before."""

from itertools import pairwise

import torch
from torch import Tensor

from catk_sim.tokens import MotionTokens
from policies.smart.memory import Past

SPAN, AGENTS = 4, 3


def mark(number: int, valid: Tensor | None = None) -> tuple[MotionTokens, Tensor]:
    """Agents at a mark, and keys and values that are told from those of all other marks."""
    tokens = MotionTokens(
        token=torch.zeros(2, AGENTS, 1, dtype=torch.int64),
        xy=torch.full((2, AGENTS, 1, 2), float(number)),
        heading=torch.zeros(2, AGENTS, 1),
        valid=torch.ones(2, AGENTS, 1, dtype=torch.bool) if valid is None else valid[..., None],
    )
    own = torch.arange(2 * AGENTS * 2 * 5.0).view(2 * AGENTS, 2, 5)
    return tokens, (100.0 * number + own)[tokens.valid.flatten()]


def nothing() -> Past:
    return Past(
        xy=torch.zeros(2, AGENTS, SPAN, 2),
        heading=torch.zeros(2, AGENTS, SPAN),
        valid=torch.zeros(2, AGENTS, SPAN, dtype=torch.bool),
        keys_values=torch.zeros(2, AGENTS, SPAN, 2, 5),
    )


def appended(past: Past, number: int) -> Past:
    tokens, keys_values = mark(number)
    return past.append(tokens, [keys_values[:2], keys_values[2:]])


def expected(last: int) -> Tensor:
    """Keys and values of the marks up to one, from mark 1 on; zeros before."""
    marks = [
        mark(number)[1] if number > 0 else torch.zeros(2 * AGENTS, 2, 5)
        for number in range(last - SPAN + 1, last + 1)
    ]
    return torch.stack(marks, dim=1).unflatten(0, (2, AGENTS))


def test_the_last_marks_are_remembered() -> None:
    past = nothing()
    for number in range(1, 12):
        past = appended(past, number)
        assert torch.equal(past.keys_values, expected(number))
        assert past.xy[0, 0, -1, 0] == number
        assert torch.equal(past.valid.sum(-1), torch.full((2, AGENTS), min(number, SPAN)))


def test_appending_seldom_copies() -> None:
    past, storages = nothing(), []
    for number in range(12):
        past = appended(past, number)
        storages.append(past.keys_values.untyped_storage().data_ptr())
    changes = sum(one != other for one, other in pairwise(storages))
    assert changes == 3


def test_a_memory_stays_as_it_was_when_marks_are_appended() -> None:
    past = appended(appended(nothing(), 1), 2)
    kept = past.keys_values.clone()
    appended(past, 3)
    assert torch.equal(past.keys_values, kept)


def test_a_memory_can_be_continued_twice() -> None:
    for past, number in ((nothing(), 1), (appended(nothing(), 1), 2)):
        past = appended(past, number)
        once, again = appended(past, number + 1), appended(past, 7)
        assert torch.equal(once.keys_values, expected(number + 1))
        assert torch.equal(again.keys_values[..., -1, :, :].flatten(0, 1), mark(7)[1])
        assert torch.equal(again.keys_values[..., :-1, :, :], expected(number + 1)[..., :-1, :, :])


def test_parts_and_copies_of_a_memory_are_continued_alike() -> None:
    past = appended(appended(nothing(), 1), 2)
    tokens, keys_values = mark(3)
    first = past.map(lambda tensor: tensor[:1])
    of_first = first.append(tokens.map(lambda tensor: tensor[:1]), [keys_values[:AGENTS]])
    assert torch.equal(of_first.keys_values, expected(3)[:1])
    repeated = past.repeat(2).append(tokens.repeat(2), [keys_values, keys_values])
    assert torch.equal(repeated.keys_values, expected(3).expand(2, -1, -1, -1, -1, -1))
    assert torch.equal(appended(past, 3).keys_values, expected(3))


def test_what_is_not_there_is_finite() -> None:
    """Padding of an attention reads the first agent's first place."""
    valid = torch.ones(2, AGENTS, dtype=torch.bool)
    valid[0, 0] = False
    past = nothing()
    for number in range(1, 9):
        tokens, keys_values = mark(number, valid)
        # New memory may hold anything.
        torch.full((2, AGENTS, SPAN + SPAN // 2, 2, 5), torch.nan)
        past = past.append(tokens, [keys_values])
        assert (past.keys_values[0, 0] == 0).all()
        assert torch.equal(past.keys_values[valid], expected(number)[valid])


def test_sources_are_a_list_in_which_marks_have_their_places() -> None:
    past = nothing()
    for number in range(1, 12):
        past = appended(past, number)
        for memory in (past, past.map(lambda tensor: tensor[1:]), past.repeat(2)):
            sources = memory.sources
            marks = torch.arange(memory.valid.numel())
            found = sources.keys_values[sources.place(marks)]
            assert torch.equal(found, memory.keys_values.flatten(0, -3))


def test_memories_that_a_gradient_goes_through_are_not_written_into() -> None:
    past = nothing()
    tokens, keys_values = mark(1)
    total = torch.zeros(())
    for _ in range(3):
        keys_values = keys_values.requires_grad_()
        past = past.append(tokens, [keys_values])
        total = total + past.keys_values.square().sum()
    total.backward()
    # It is remembered three times, then twice, then once.
    torch.testing.assert_close(keys_values.grad, 2 * keys_values.detach() * (3 + 2 + 1))


def test_the_wider_number_type_is_kept() -> None:
    tokens, keys_values = mark(1)
    past = appended(nothing().to(torch.float32), 2).append(tokens, [keys_values.double()])
    assert past.keys_values.dtype == torch.float64
