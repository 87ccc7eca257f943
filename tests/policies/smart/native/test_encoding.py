import math
import threading
from threading import Thread

import pytest
import torch
from torch import Tensor

from policies.smart.layers import FourierEmbedding
from policies.smart.native.encoding import MOST_CURVES, Encoding, _Memory, fits

pytestmark = pytest.mark.usefixtures("kernels")

RANGES = ((0.0, 30.0), (-math.pi, math.pi), (-math.pi, math.pi), (-6.0, 0.0))


def embedding(curves: int, hidden: int) -> FourierEmbedding:
    torch.manual_seed(0)
    layer = FourierEmbedding(RANGES[:curves], 8, hidden)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer.requires_grad_(False)


def numbers(curves: int) -> Tensor:
    """Within the ranges, at their ends, and beyond them."""
    low, high = torch.tensor(RANGES[:curves]).unbind(dim=1)
    places = torch.rand(500, curves, generator=torch.Generator().manual_seed(1))
    places[0], places[1], places[2], places[3] = 0, 1, -0.5, 1.5
    return low + places * (high - low)


def by_torch(layer: FourierEmbedding, numbers: Tensor) -> Tensor:
    return layer.double().normalised(numbers.double())


def encode(layer: FourierEmbedding, numbers: Tensor) -> Encoding:
    encoding = layer.encode(numbers)
    assert isinstance(encoding, Encoding)
    return encoding


def by_kernel(layer: FourierEmbedding, numbers: Tensor) -> Tensor:
    return encode(layer, numbers).normalised


@pytest.mark.parametrize("hidden", [32, 64, 128, 512])
@pytest.mark.parametrize("curves", [1, 3, 4])
def test_encodings_are_those_of_torch(curves: int, hidden: int) -> None:
    native = by_kernel(embedding(curves, hidden), numbers(curves))
    expected = by_torch(embedding(curves, hidden), numbers(curves))
    # A number is a thousand places times its rounding from where float64 has it.
    torch.testing.assert_close(native.double(), expected, atol=2e-4, rtol=1e-4)
    assert native.mean(dim=-1).abs().max() < 1e-5


def endless(num_frequencies: int) -> FourierEmbedding:
    """Of two numbers without a range, around one that has a table."""
    torch.manual_seed(0)
    layer = FourierEmbedding((None, (-math.pi, math.pi), None), num_frequencies, 64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer.requires_grad_(False)


def endless_numbers() -> Tensor:
    """Of a motion, of a town, and none."""
    generator = torch.Generator().manual_seed(1)
    some = torch.randn(77, 3, generator=generator) * torch.tensor([3.0, 1.0, 100.0])
    some[5] = 0
    return some


@pytest.mark.parametrize("num_frequencies", [64, 24, 3])
def test_numbers_without_a_range_are_embedded_as_by_torch(num_frequencies: int) -> None:
    some, extra = endless_numbers(), torch.randn(77, 64)
    native = endless(num_frequencies)
    encoded = by_kernel(native, some)
    embedded = [native(some), native(some, extra)]
    exact, some, extra = endless(num_frequencies).double(), some.double(), extra.double()
    for found, expected in [
        (encoded, exact.normalised(some)),
        (embedded[0], exact(some)),
        (embedded[1], exact(some, extra)),
    ]:
        # A hundred metres times a frequency of one are that many turns, rounded.
        torch.testing.assert_close(found.double(), expected, atol=3e-4, rtol=1e-4)


def test_waves_are_as_exact_as_floats() -> None:
    layer = endless(64)
    # Without the table, which is less exact.
    layer.weight_out[1] = 0
    some = endless_numbers() / 100
    native = by_kernel(layer, some)
    expected = layer.double().normalised(some.double())
    torch.testing.assert_close(native.double(), expected, atol=2e-5, rtol=0)


def test_waves_of_any_number_have_an_end() -> None:
    some = endless_numbers()
    some[0, 2], some[1, 2], some[2, 2] = 4e6, -1e30, torch.inf
    encoded = by_kernel(endless(64), some)
    assert encoded[2].isnan().all()
    assert encoded[[0, 1]].isfinite().all()
    # Far out there, floats are whole turns apart.
    fewer = endless(1)
    fewer.frequencies.fill_(1.0)
    far = torch.tensor([[0.0, 0.0, 2.0**24]])
    expected = fewer.double().normalised(far.double())
    torch.testing.assert_close(by_kernel(fewer.float(), far).double(), expected, atol=1e-4, rtol=0)


def test_what_is_not_a_number_is_seen() -> None:
    some = numbers(3)
    some[4, 1] = torch.nan
    encoded = by_kernel(embedding(3, 64), some)
    assert encoded[4].isnan().all()
    assert encoded[5:].isfinite().all()


def test_no_rows_are_no_work() -> None:
    assert by_kernel(embedding(3, 64), torch.zeros(0, 3)).shape == (0, 64)


def test_odd_sizes_are_left_to_torch() -> None:
    assert fits(64, 3)
    assert not fits(12, 3)
    assert not fits(64, MOST_CURVES + 1)
    encoded = embedding(3, 12).encode(numbers(3))
    assert isinstance(encoded, Tensor)
    expected = by_torch(embedding(3, 12), numbers(3))
    torch.testing.assert_close(encoded.double(), expected, atol=2e-4, rtol=1e-4)


def test_what_is_learnt_is_left_to_torch() -> None:
    layer = embedding(3, 64).requires_grad_()
    assert isinstance(layer.encode(numbers(3)), Tensor)
    with torch.no_grad():
        assert isinstance(layer.encode(numbers(3)), Encoding)


def test_new_weights_make_other_encodings() -> None:
    layer = embedding(3, 64)
    before = by_kernel(layer, numbers(3))
    with torch.no_grad():
        layer.weight_out.mul_(-1)
    torch.testing.assert_close(by_kernel(layer, numbers(3)), layer.normalised(numbers(3)))
    assert not torch.allclose(by_kernel(layer, numbers(3)), before)


def test_memory_is_used_again_only_when_nobody_needs_it() -> None:
    layer = embedding(3, 64)
    first = encode(layer, numbers(3))
    kept = first.features.clone()
    second = encode(layer, numbers(3) / 2)
    assert torch.equal(first.features, kept)
    place = second.features.data_ptr()
    del second
    third = encode(layer, numbers(3)[:400])
    assert third.features.data_ptr() == place
    assert torch.equal(first.features, kept)


def test_pieces_of_memory_do_not_overlap_and_are_given_back() -> None:
    memory = _Memory()
    generator = torch.Generator().manual_seed(0)
    kept: list[Tensor] = []
    for step in range(200):
        size = int(torch.randint(1, _Memory._SLAB // 4, (), generator=generator))
        kept.append(memory.take(size)[:2])
        kept[-1].fill_(step)
        if len(kept) > 5:
            # A view keeps its piece as the whole does.
            del kept[int(torch.randint(5, (), generator=generator))]
        assert [int(piece[0]) for piece in kept] == sorted(int(piece[0]) for piece in kept)
    # Five pieces of a quarter at most, and gaps.
    assert len(memory._slabs) <= 4
    kept.clear()
    memory._collect()
    assert memory._free == [(slab, 0, len(whole)) for slab, whole in memory._slabs.items()]


def test_memory_beyond_what_is_kept_goes_back_to_the_system() -> None:
    memory = _Memory()
    pieces = [memory.take(_Memory._MOST_KEPT // 2 + 1) for _ in range(3)]
    assert len(memory._slabs) == 3
    pieces.clear()
    memory._collect()
    assert len(memory._slabs) == 1
    assert len(memory.take(0)) == 0


def test_threads_take_memory_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, entered, go_on = _Memory(), threading.Event(), threading.Event()
    collect = memory._collect

    def collect_slowly() -> None:
        entered.set()
        go_on.wait()
        collect()

    monkeypatch.setattr(memory, "_collect", collect_slowly)
    pieces: list[Tensor] = []
    first, second = (Thread(target=lambda: pieces.append(memory.take(8))) for _ in range(2))
    first.start()
    entered.wait()
    entered.clear()
    second.start()
    waited = not entered.wait(0.2)
    go_on.set()
    first.join()
    second.join()
    assert waited
    assert abs(pieces[0].data_ptr() - pieces[1].data_ptr()) == 8 * 4
