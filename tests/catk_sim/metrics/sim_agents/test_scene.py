import numpy as np
import pytest
import torch

from catk_sim.constants import CURRENT_STEP
from catk_sim.datasets.batching import collate
from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.datatypes import Scenario
from catk_sim.metrics.sim_agents.scene import EvaluatedScene, in_file_frame
from tests.catk_sim.metrics.sim_agents.goldens import golden_arrays, real_scenario


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    """A generated scenario that stands kilometres from its file's origin."""
    scenario = next(
        scenario
        for scenario in map(generate_scenario, range(20))
        if scenario.traffic_lights.valid.any()
    )
    far = torch.tensor([8123.0, -6001.0, 31.0], dtype=torch.float64)
    return scenario.replace(origin=scenario.origin + far)


def test_coordinates_of_a_real_file_come_back_to_the_bit():
    scene = EvaluatedScene.from_scenario(real_scenario())
    golden = golden_arrays("a_log_replay_sim")

    np.testing.assert_array_equal(scene.object_id.numpy(), golden["object_id"])
    future = scene.logged.slice(11)
    valid = future.valid.numpy()
    for name in ("x", "y", "z", "heading"):
        logged = getattr(future, name).numpy()
        np.testing.assert_array_equal(logged[valid], golden[name][0][valid])
        # Nearly zeros, as the file has them. One far absent agent is not among the sim agents.
        assert abs(logged[~valid]).max() < 1e-3


def test_coordinates_round_once_from_the_file(scenario: Scenario):
    scene = EvaluatedScene.from_scenario(scenario)
    exact = scenario.log.xy[scene.track, :, 0] + scenario.origin[0]

    assert torch.equal(scene.logged.x, exact.float())
    placed = in_file_frame(scenario)
    assert torch.equal(placed.roadgraph.xyz, (scenario.roadgraph.xyz + scenario.origin).float())


def test_lights_that_are_not_seen_stand_at_the_origin_without_a_state(scenario: Scenario):
    lights = scenario.traffic_lights
    assert lights.valid.any()
    unseen = scenario.replace(traffic_lights=lights.replace(valid=torch.zeros_like(lights.valid)))

    placed = in_file_frame(unseen).traffic_lights
    assert not placed.state.any()
    assert not placed.stop_xyz.any()
    seen = in_file_frame(scenario).traffic_lights
    assert torch.equal(
        seen.stop_xyz[lights.valid], (lights.stop_xyz + scenario.origin).float()[lights.valid]
    )


def test_sim_agents_are_those_at_the_current_step(scenario: Scenario):
    valid = scenario.log.valid.clone()
    sdc, gone = valid[:, CURRENT_STEP].nonzero()[:2, 0].tolist()
    valid[gone, CURRENT_STEP] = False
    metadata = scenario.agents.replace(
        to_predict=torch.zeros_like(scenario.agents.to_predict),
        is_sdc=torch.arange(len(valid)) == sdc,
    )
    scene = EvaluatedScene.from_scenario(
        scenario.replace(log=scenario.log.replace(valid=valid), agents=metadata)
    )

    present = valid[:, CURRENT_STEP].nonzero()[:, 0].tolist()
    assert gone not in present
    assert scene.track.tolist() == present
    assert scene.object_id.tolist() == scenario.agents.agent_id[present].tolist()
    assert scene.track[scene.evaluated].tolist() == [sdc]


def test_evaluated_agents_come_by_id(scenario: Scenario):
    num_agents = len(scenario.agents.agent_id)
    ids = torch.randperm(num_agents, generator=torch.Generator().manual_seed(1)) + 100
    present = scenario.log.valid[:, CURRENT_STEP]
    chosen = present & (present.cumsum(0) <= 4)
    scene = EvaluatedScene.from_scenario(
        scenario.replace(agents=scenario.agents.replace(agent_id=ids, to_predict=chosen))
    )

    sdc = scenario.agents.is_sdc
    expected = sorted(ids[chosen | sdc].tolist())
    assert scene.object_id[scene.evaluated].tolist() == expected
    everybody = EvaluatedScene.from_scenario(scenario, evaluate_all=True)
    assert everybody.evaluated.tolist() == list(range(everybody.num_agents))


def test_padding_is_marked(scenario: Scenario):
    small = generate_scenario(8)
    batch = EvaluatedScene.from_scenario(collate([scenario, small]))

    for index, single in enumerate((scenario, small)):
        scene = EvaluatedScene.from_scenario(single)
        count, evaluated = scene.num_agents, scene.evaluated.shape[0]
        assert batch.is_sim_agent[index].sum() == count
        assert batch.is_sim_agent[index, :count].all()
        assert torch.equal(batch.object_id[index, :count], scene.object_id)
        assert (batch.object_id[index, count:] == -1).all()
        assert batch.is_evaluated[index].sum() == evaluated
        assert torch.equal(batch.evaluated[index, :evaluated], scene.evaluated)
        assert torch.equal(batch.logged.select(index).x[:count], scene.logged.x)
        assert not batch.logged.select(index).valid[count:].any()


def test_scenarios_that_cannot_be_scored_are_refused(scenario: Scenario):
    log = scenario.log
    with pytest.raises(ValueError, match=r"91 steps .* got 90"):
        EvaluatedScene.from_scenario(scenario.replace(log=log.slice(0, 90)))

    sdc = scenario.agents.is_sdc
    absent = log.valid.clone()
    absent[sdc, CURRENT_STEP] = False
    number = int(scenario.agents.agent_id[sdc])
    with pytest.raises(ValueError, match=rf"\[.*{number}.*\] are to be evaluated but not valid"):
        EvaluatedScene.from_scenario(scenario.replace(log=log.replace(valid=absent)))

    nobody = torch.zeros_like(sdc)
    with pytest.raises(ValueError, match="no agent to evaluate"):
        EvaluatedScene.from_scenario(
            scenario.replace(agents=scenario.agents.replace(is_sdc=nobody, to_predict=nobody))
        )
