import numpy as np
import pytest
import torch
from numpy import ndarray

from catk_sim.constants import FUTURE_STEPS, HISTORY_STEPS
from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.datatypes import Scenario
from catk_sim.metrics.sim_agents.joint_scenes import JointScenes, generated_scenes
from catk_sim.metrics.sim_agents.scene import EvaluatedScene
from catk_sim.rollout import rollout
from policies.registry import make_policy

Arrays = dict[str, ndarray]


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    scenario = generate_scenario(7)
    far = torch.tensor([8123.0, -6001.0, 31.0], dtype=torch.float64)
    return scenario.replace(origin=scenario.origin + far)


@pytest.fixture(scope="module")
def scene(scenario: Scenario) -> EvaluatedScene:
    return EvaluatedScene.from_scenario(scenario)


def arrays_of(scene: EvaluatedScene, num_steps: int = FUTURE_STEPS) -> Arrays:
    generator = np.random.default_rng(0)
    shape = (2, scene.num_agents, num_steps)
    names = ("x", "y", "z", "heading")
    return {
        "object_id": scene.object_id.numpy(),
        **{name: generator.normal(size=shape).astype(np.float32) for name in names},
    }


def test_a_rollout_is_told_in_the_coordinates_of_the_file(
    scenario: Scenario, scene: EvaluatedScene
):
    policy = make_policy("constant_velocity")
    driven = rollout(policy, scenario.to(torch.float32), num_rollouts=2)

    joint = JointScenes.from_rollout(driven.simulated, scene)

    future = driven.simulated.slice(HISTORY_STEPS, 91).map(lambda tensor: tensor[:, scene.track])
    xy = (future.xy.double() + scenario.origin[:2]).float()
    assert torch.equal(joint.x, xy[..., 0])
    assert torch.equal(joint.y, xy[..., 1])
    assert torch.equal(joint.z, (future.z.double() + scenario.origin[2]).float())
    assert torch.equal(joint.heading, future.heading)


def test_rollouts_with_gaps_or_of_other_lengths_are_refused(
    scenario: Scenario, scene: EvaluatedScene
):
    driven = rollout(make_policy("constant_velocity"), scenario.to(torch.float32)).simulated
    with pytest.raises(ValueError, match="wanted rollouts of 91 steps, history included, got 90"):
        JointScenes.from_rollout(driven.slice(0, 90), scene)
    valid = driven.valid.clone()
    valid[0, scene.track[2], 50] = False
    with pytest.raises(ValueError, match="1 futures of sim agents have steps without the agent"):
        JointScenes.from_rollout(driven.replace(valid=valid), scene)


def test_agents_that_leave_may_be_held(scenario: Scenario, scene: EvaluatedScene):
    driven = rollout(make_policy("constant_velocity"), scenario.to(torch.float32)).simulated
    valid = driven.valid.clone()
    # One leaves and comes back, one leaves at once.
    valid[0, scene.track[2], 50:53] = False
    valid[0, scene.track[3], 11:] = False

    held = JointScenes.from_rollout(driven.replace(valid=valid), scene, hold_absent=True)

    whole = JointScenes.from_rollout(driven, scene)
    for name in ("x", "y", "z", "heading"):
        expected = getattr(whole, name).clone()
        expected[0, 2, 39:42] = expected[0, 2, 38]
        future = getattr(held, name)
        assert torch.equal(future[0, [0, 1, 2]], expected[0, [0, 1, 2]])
        assert (future[0, 3] == future[0, 3, 0]).all()
    now = driven.xy[0, scene.track[3], 10].double() + scenario.origin[:2]
    assert held.x[0, 3, 0] == now[0].float()


def test_agents_may_come_in_any_order(scene: EvaluatedScene):
    arrays = arrays_of(scene)
    order = np.random.default_rng(1).permutation(scene.num_agents)
    shuffled = {
        name: array[order] if array.ndim == 1 else array[:, order] for name, array in arrays.items()
    }

    one, other = (JointScenes.from_arrays(**some, scene=scene) for some in (arrays, shuffled))

    for name in ("x", "y", "z", "heading"):
        np.testing.assert_array_equal(getattr(one, name).numpy(), arrays[name])
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_double_precision_is_rounded(scene: EvaluatedScene):
    arrays = arrays_of(scene)
    doubles = arrays | {"x": arrays["x"].astype(np.float64) + 1e-12}

    assert JointScenes.from_arrays(**doubles, scene=scene).x.dtype == torch.float32


def without(arrays: Arrays, row: int) -> Arrays:
    return {
        name: np.delete(array, row, axis=0 if array.ndim == 1 else 1)
        for name, array in arrays.items()
    }


def test_wrong_agents_are_named(scene: EvaluatedScene):
    arrays = arrays_of(scene)
    first, second = arrays["object_id"][:2].tolist()
    with pytest.raises(ValueError, match=rf"lack the sim agents \[{first}\]"):
        JointScenes.from_arrays(**without(arrays, 0), scene=scene)

    strange = arrays["object_id"].copy()
    strange[0] = 999_999
    message = rf"lack the sim agents \[{first}\] and have agents that are no sim agents \[999999\]"
    with pytest.raises(ValueError, match=message):
        JointScenes.from_arrays(**arrays | {"object_id": strange}, scene=scene)

    twice = arrays["object_id"].copy()
    twice[0] = second
    with pytest.raises(ValueError, match=rf"have more than once the agents \[{second}\]"):
        JointScenes.from_arrays(**arrays | {"object_id": twice}, scene=scene)


@pytest.mark.parametrize("name", ["x", "y", "z", "heading"])
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_numbers_that_are_not_finite_are_named(scene: EvaluatedScene, name: str, bad: float):
    arrays = arrays_of(scene)
    arrays[name][1, 4, 70] = bad

    with pytest.raises(ValueError, match=rf"{name} is not finite .*\[{scene.object_id[4]}\]"):
        JointScenes.from_arrays(**arrays, scene=scene)


def test_wrong_shapes_and_types_are_named(scene: EvaluatedScene):
    arrays = arrays_of(scene)
    count = scene.num_agents
    with pytest.raises(ValueError, match=rf"z: wanted .*80 steps.*\(2, {count}, 79\)"):
        JointScenes.from_arrays(**arrays | {"z": arrays["z"][..., :79]}, scene=scene)
    with pytest.raises(ValueError, match=rf"y: wanted .*\(1, {count}, 80\)"):
        JointScenes.from_arrays(**arrays | {"y": arrays["y"][:1]}, scene=scene)
    with pytest.raises(ValueError, match=r"x: wanted floats .*int64"):
        JointScenes.from_arrays(**arrays | {"x": arrays["x"].astype(np.int64)}, scene=scene)
    ids = arrays["object_id"].astype(np.float32)
    with pytest.raises(ValueError, match=r"object_id: wanted integers .*float32"):
        JointScenes.from_arrays(**arrays | {"object_id": ids}, scene=scene)
    none = {name: array if array.ndim == 1 else array[:0] for name, array in arrays.items()}
    with pytest.raises(ValueError, match="at least 1"):
        JointScenes.from_arrays(**none, scene=scene)


def test_generated_scenes_have_sizes_of_their_own(scene: EvaluatedScene):
    arrays = arrays_of(scene, num_steps=91)
    object_id = arrays.pop("object_id")
    sizes = {
        name: np.full((scene.num_agents, 91), value, dtype=np.float32)
        for name, value in (("length", 4.0), ("width", 2.0), ("height", 1.5))
    }

    boxes = generated_scenes(object_id, arrays, sizes, scene)

    assert boxes.valid.all()
    assert boxes.x.shape == boxes.length.shape == (2, scene.num_agents, 91)
    assert (boxes.width == 2).all()
    sizes["height"][3, 3] = np.nan
    with pytest.raises(ValueError, match="height is not finite"):
        generated_scenes(object_id, arrays, sizes, scene)
