import torch

from catk_sim.datatypes import TrafficLights


def lights() -> TrafficLights:
    """Two lights for four steps. The second is not seen at the end."""
    return TrafficLights(
        lane_id=torch.tensor([7, 9]),
        state=torch.tensor([[4, 4, 5, 6], [6, 6, 4, 4]]),
        stop_xyz=torch.arange(24.0).reshape(2, 4, 3),
        valid=torch.tensor([[True] * 4, [True, True, True, False]]),
    )


def test_each_scenario_takes_its_own_step() -> None:
    batch = TrafficLights.stack([lights(), lights()]).at(torch.tensor([0, 2]))
    assert batch.state[..., 0].tolist() == [[4, 6], [5, 4]]
    assert torch.equal(batch.stop_xyz[1, :, 0], lights().stop_xyz[:, 2])
    assert batch.valid.all()
    assert batch.lane_id.tolist() == [[7, 9], [7, 9]]


def test_beyond_the_log_lights_stay_as_they_were() -> None:
    last, later = lights().at(torch.tensor(3)), lights().at(torch.tensor(90))
    assert torch.equal(later.state, last.state)
    assert later.state[:, 0].tolist() == [6, 4]
    assert later.valid[:, 0].tolist() == [True, False]


def test_there_may_be_no_lights() -> None:
    none = lights().map(lambda tensor: tensor[:0])
    assert none.at(torch.tensor(2)).state.shape == (0, 1)
