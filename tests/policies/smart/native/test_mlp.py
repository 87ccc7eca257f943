"""Small networks in C, beside the same by torch in float64."""

from copy import deepcopy

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from policies.smart.layers import MLP, MLPEmbedding
from policies.smart.native import threads

pytestmark = pytest.mark.usefixtures("kernels")

# None, one, and more than are worked on together but no multiple of these.
ROWS = (0, 1, 77)


def network(kind: type[MLP | MLPEmbedding]) -> MLP | MLPEmbedding:
    torch.manual_seed(0)
    made = MLP(3, 64, 160) if kind is MLP else MLPEmbedding(8, 32)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def rows_for(made: MLP | MLPEmbedding, count: int) -> Tensor:
    first = next(made.parameters())
    return torch.randn(count, first.shape[1], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("count", ROWS)
@pytest.mark.parametrize("kind", [MLP, MLPEmbedding])
def test_a_network_makes_what_torch_makes(
    kind: type[MLP | MLPEmbedding], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = network(kind)
    rows = rows_for(made, count)
    expected = deepcopy(made).double()(rows.double())
    with torch.no_grad():
        found = made(rows)
        assert torch.equal(made(rows[None, :, None])[0, :, 0], found)
        monkeypatch.setattr(threads, "_WORTHWHILE", 1)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        assert torch.equal(made(rows), found)
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=2e-5)


def test_new_weights_make_something_else() -> None:
    made = network(MLP)
    rows = rows_for(made, 5)
    with torch.no_grad():
        before = made(rows)
        made.load_state_dict({name: -value for name, value in made.state_dict().items()})
        after = made(rows)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after.double(), made.double()(rows.double()), atol=2e-5, rtol=2e-5)


def test_what_is_not_a_number_is_seen() -> None:
    made = network(MLPEmbedding)
    rows = rows_for(made, 3)
    rows[1, 0] = torch.nan
    with torch.no_grad():
        found = made(rows)
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()


def test_other_sizes_and_numbers_are_left_to_torch() -> None:
    odd = MLP(3, 20, 12)
    with torch.no_grad():
        assert odd(torch.zeros(2, 3)).shape == (2, 12)
        assert network(MLP).double()(torch.zeros(2, 3).double()).dtype == torch.float64
        with pytest.raises((RuntimeError, TypeCheckError)):
            network(MLP)(torch.zeros(2, 4))
        with pytest.raises(RuntimeError, match="dtype"):
            network(MLP).double()(torch.zeros(2, 3))
