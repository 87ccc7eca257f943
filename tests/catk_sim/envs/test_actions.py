import torch

from catk_sim.envs.actions import resize

VALUES = torch.arange(12.0).reshape(2, 3, 2)


def test_as_many_agents_as_are_wanted_are_left_as_they_are() -> None:
    assert resize(VALUES, 3) is VALUES


def test_agents_beyond_the_number_are_cut_off() -> None:
    assert torch.equal(resize(VALUES, 2), VALUES[:, :2])


def test_agents_that_are_missing_are_zero() -> None:
    padded = resize(VALUES, 5)
    assert torch.equal(padded[:, :3], VALUES)
    assert padded.shape == (2, 5, 2)
    assert not padded[:, 3:].any()
    assert resize(VALUES[..., 0] > 3, 4)[:, 3].tolist() == [False, False]
