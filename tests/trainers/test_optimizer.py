import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from trainers.configs import OptimizerConfig
from trainers.optimizer import AdamW, learning_rate

CONFIG = OptimizerConfig(learning_rate=1.0, final_ratio=0.1, warmup_steps=4)

# Large, so that every part of the update shows.
STEP = OptimizerConfig(learning_rate=0.1, weight_decay=0.2)


def gradients(parameters: list[nn.Parameter], *, first: int = 0, last: int = 6) -> Iterator[None]:
    """Gives the parameters gradients, step by step; the last parameter has none at first."""
    for step in range(first, last):
        for place, parameter in enumerate(parameters):
            generator = torch.Generator().manual_seed(10 * step + place)
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        if step < 2:
            parameters[-1].grad = None
        yield


def some_parameters() -> list[nn.Parameter]:
    shapes = ((3, 2), (5,), (1, 4))
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).double()) for shape in shapes]


def assert_equal(parameters: list[nn.Parameter], others: list[nn.Parameter]) -> None:
    for one, other in zip(parameters, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_parameters_change_as_by_the_optimiser_of_torch() -> None:
    ours, theirs = some_parameters(), some_parameters()
    optimizer = AdamW(ours, STEP)
    reference = torch.optim.AdamW(theirs, lr=STEP.learning_rate, weight_decay=STEP.weight_decay)
    for step, _ in enumerate(zip(gradients(ours), gradients(theirs), strict=True)):
        optimizer.learning_rate = reference.param_groups[0]["lr"] = 0.1 / (1 + step)
        optimizer.step()
        reference.step()
        assert_equal(ours, theirs)


def test_a_restored_optimiser_goes_on_as_it_would_have() -> None:
    whole, restored = some_parameters(), some_parameters()
    optimizer = AdamW(whole, STEP)
    for _ in gradients(whole, last=3):
        optimizer.step()
    with torch.no_grad():
        for parameter, value in zip(restored, whole, strict=True):
            parameter.copy_(value)
    other = AdamW(restored, STEP)
    other.load_state_dict(copied(optimizer.state_dict()))
    for _ in zip(gradients(whole, first=3), gradients(restored, first=3), strict=True):
        optimizer.step()
        other.step()
    assert all(torch.equal(*pair) for pair in zip(whole, restored, strict=True))


def copied(state: dict[int, dict[str, Tensor]]) -> dict[int, dict[str, Tensor]]:
    return {
        place: {name: value.clone() for name, value in entry.items()}
        for place, entry in state.items()
    }


@pytest.mark.parametrize("shapes", [[(3, 2), (4,)], [(3, 2)]])
def test_the_state_of_other_parameters_is_refused(shapes: list[tuple[int, ...]]) -> None:
    parameters = some_parameters()
    optimizer = AdamW(parameters, STEP)
    for _ in gradients(parameters, last=1):
        optimizer.step()
    other = AdamW([nn.Parameter(torch.zeros(shape)) for shape in shapes], STEP)
    with pytest.raises(ValueError, match=r"wanted the state of parameters .* got .*\(5,\)"):
        other.load_state_dict(optimizer.state_dict())


def test_a_step_changes_the_versions_of_what_it_changes() -> None:
    parameters = some_parameters()
    next(gradients(parameters))
    before = [parameter._version for parameter in parameters]
    AdamW(parameters, STEP).step()
    changed = [
        parameter._version > version for parameter, version in zip(parameters, before, strict=True)
    ]
    assert changed == [True, True, False]


def test_gradients_are_forgotten() -> None:
    parameters = some_parameters()
    next(gradients(parameters))
    AdamW(parameters, STEP).zero_grad()
    assert all(parameter.grad is None for parameter in parameters)


@pytest.mark.slow
def test_a_step_does_without_the_compiler_of_torch() -> None:
    program = """
import sys, torch
from trainers.configs import OptimizerConfig
from trainers.optimizer import AdamW
parameter = torch.nn.Parameter(torch.zeros(1))
optimizer = AdamW([parameter], OptimizerConfig())
parameter.grad = torch.ones(1)
optimizer.step()
optimizer.zero_grad()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_rate_warms_up_to_its_peak() -> None:
    assert [learning_rate(step, 104, CONFIG) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_rate_is_half_way_at_half_time() -> None:
    assert learning_rate(54, 104, CONFIG) == pytest.approx(0.55)


def test_the_rate_ends_at_its_final_ratio() -> None:
    assert learning_rate(104, 104, CONFIG) == pytest.approx(0.1)


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_a_rate_that_cannot_learn_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        OptimizerConfig(learning_rate=rate)
