import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.datasets.sources import open_scenarios
from catk_sim.datatypes import Scenario
from catk_sim.metrics import object_distance
from catk_sim.metrics.box_trajectory import BoxTrajectory
from catk_sim.metrics.object_distance import NO_OBJECT, distance_to_nearest_object
from tests.catk_sim.geometry.rounded_boxes_reference import crowd, reference_distance
from tests.shared import shared_path

SIZE = ("length", "width", "height")
POSE = ("x", "y", "z", "heading")


def trajectory(fields: Tensor, valid: Tensor) -> BoxTrajectory:
    """Makes a trajectory of boxes (x, y, heading, length, width), each *batch agents steps."""
    x, y, heading, length, width = fields
    return BoxTrajectory(
        x=x,
        y=y,
        z=torch.zeros_like(x),
        heading=heading,
        length=length,
        width=width,
        height=torch.ones_like(x),
        valid=valid,
    )


def crowds(
    seed: int,
    batch: tuple[int, ...],
    agents: int,
    steps: int,
    *,
    extent: float,
    origin: float = 0.0,
) -> BoxTrajectory:
    """Makes another crowd at every step, some of whose agents are invalid."""
    num = math.prod(batch) * steps
    seeds = range(seed, seed + num)
    fields = [crowd(one, agents, extent=extent, origin=origin) for one in seeds]
    fields = torch.stack(fields, dim=1).reshape(5, *batch, steps, agents).transpose(-1, -2)
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(fields.shape[1:], generator=generator) > 0.2
    return trajectory(fields, valid)


def every_agent(boxes: BoxTrajectory) -> Tensor:
    return torch.arange(boxes.valid.shape[-2]).expand(boxes.valid.shape[:-1])


def test_the_nearest_counts() -> None:
    """A car in the middle of three, who stand in a line; the last two overlap."""
    x = torch.tensor([0.0, 7.0, 15.0, 18.0])
    size = torch.tensor([4.0, 2.0])[:, None].expand(2, 4)
    fields = torch.stack([x, 0 * x, 0 * x, *size])[..., None]
    boxes = trajectory(fields, torch.ones(4, 1, dtype=torch.bool))
    distance = distance_to_nearest_object(boxes, torch.tensor([1, 0, 2, 3]))
    torch.testing.assert_close(distance, torch.tensor([[3.0], [3.0], [-1.0], [-1.0]]))


@pytest.mark.parametrize("rounding", [0.0, 0.7])
@pytest.mark.parametrize(
    ("origin", "extent"), [(0.0, 12.0), (0.0, 100.0), (1e4, 12.0), (5e4, 40.0), (5e4, 4.0)]
)
def test_every_figure_is_that_of_plain_float32_steps(
    rounding: float, origin: float, extent: float
) -> None:
    boxes = crowds(7, (), 14, 3, extent=extent, origin=origin)
    distance = distance_to_nearest_object(boxes, every_agent(boxes), rounding=rounding)
    fields = torch.stack([boxes.x, boxes.y, boxes.heading, boxes.length, boxes.width])
    for one in range(14):
        for step in range(3):
            expected = [
                reference_distance(fields[:, one, step], fields[:, other, step], rounding)
                for other in range(14)
                if other != one and (boxes.valid[one, step] & boxes.valid[other, step])
            ]
            assert distance[one, step].item() == min(expected, default=NO_OBJECT), (one, step)


@given(seed=st.integers(0, 2**31), origin=st.sampled_from([0.0, 8e3, 1e6]))
def test_leaving_out_far_agents_changes_nothing(seed: int, origin: float) -> None:
    """Of two agents, nobody is left out."""
    boxes = crowds(seed, (), 12, 2, extent=20.0, origin=origin)
    pairs = torch.cartesian_prod(torch.arange(12), torch.arange(12))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    apart = boxes.map(lambda tensor: tensor[pairs])
    one_by_one = distance_to_nearest_object(apart, torch.zeros(len(pairs), 1, dtype=torch.int64))
    expected = one_by_one.reshape(12, 11, 2).amin(dim=1)
    assert distance_to_nearest_object(boxes, every_agent(boxes)).equal(expected)


def test_few_pairs_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cars all over a town. Of their 48000 pairs, at most three for each car need measuring."""
    fields = torch.rand(5, 4, 40, 5, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([300.0, 300.0, 6.28, 1.0, 0.5]).reshape(5, 1, 1, 1)
    offset = torch.tensor([-8000.0, 7000.0, 0.0, 4.0, 1.7]).reshape(5, 1, 1, 1)
    boxes = trajectory(fields * scale + offset, torch.ones(4, 40, 5, dtype=torch.bool))
    measured = []
    measure = object_distance.rounded_box_distance

    def counting(one: Tensor, other: Tensor, *, rounding: float) -> Tensor:
        measured.append(one.shape[1])
        return measure(one, other, rounding=rounding)

    monkeypatch.setattr(object_distance, "rounded_box_distance", counting)
    distance_to_nearest_object(boxes, every_agent(boxes))
    assert sum(measured) < 3 * boxes.valid.numel()


def test_who_is_alone_is_infinitely_far_from_others() -> None:
    boxes = crowds(0, (), 3, 4, extent=5.0)
    valid = torch.tensor(
        # step     0      1      2      3
        [
            [True, True, False, False],
            [False, True, True, False],
            [False, False, True, True],
        ]
    )
    distance = distance_to_nearest_object(boxes.replace(valid=valid), torch.tensor([0, 1, 2]))
    alone = distance == NO_OBJECT
    assert alone.tolist() == [
        [True, False, True, True],
        [True, False, False, True],
        [True, True, False, True],
    ]


@pytest.mark.parametrize("agents", [1, 4])
def test_an_agent_is_not_its_own_neighbor(agents: int) -> None:
    """Asked for once or several times."""
    boxes = crowds(0, (2,), 1, 3, extent=5.0)
    evaluated = torch.zeros(2, agents, dtype=torch.int64)
    assert (distance_to_nearest_object(boxes, evaluated) == NO_OBJECT).all()


def test_sizes_may_change_from_step_to_step() -> None:
    boxes = crowds(0, (), 6, 5, extent=10.0)
    distance = distance_to_nearest_object(boxes, torch.arange(6))
    for step in range(5):
        one = boxes.slice(step, step + 1)
        assert distance_to_nearest_object(one, torch.arange(6)).equal(distance[:, step : step + 1])


def test_boxes_of_no_size_at_the_origin_do_not_touch() -> None:
    """So WOSAC's scenario generation sees what was not logged."""
    boxes = trajectory(torch.zeros(5, 3, 1), torch.ones(3, 1, dtype=torch.bool))
    assert (distance_to_nearest_object(boxes, torch.arange(3)) == 0).all()


def test_height_plays_no_part() -> None:
    boxes = crowds(0, (), 6, 5, extent=10.0)
    expected = distance_to_nearest_object(boxes, torch.arange(6))
    high = boxes.replace(z=torch.rand_like(boxes.z) * 100, height=0 * boxes.height)
    assert distance_to_nearest_object(high, torch.arange(6)).equal(expected)


@pytest.mark.parametrize("field", ["x", "y", "heading", "length", "width"])
def test_what_is_not_a_number_shows(field: str) -> None:
    """At the agent itself, and at those to whom it may be the nearest: here at all."""
    near = torch.tensor([0.0, 0.0, 0.0, 4.0, 2.0])[:, None, None] + 0.1 * torch.rand(
        5, 8, 6, generator=torch.Generator()
    )
    boxes = trajectory(near, torch.ones(8, 6, dtype=torch.bool))
    broken = getattr(boxes, field).clone()
    broken[3, 2] = math.nan
    distance = distance_to_nearest_object(boxes.replace(**{field: broken}), torch.arange(8))
    shown = distance.isnan()
    assert shown[:, 2].all()
    assert shown.sum() == 8


@pytest.mark.parametrize(("max_bounded", "max_measured"), [(1, 1 << 16), (1 << 19, 5), (200, 3)])
def test_chunks_change_nothing(
    monkeypatch: pytest.MonkeyPatch, max_bounded: int, max_measured: int
) -> None:
    boxes = crowds(3, (2, 3), 7, 4, extent=15.0, origin=8e3)
    evaluated = torch.tensor([[0, 3, 5], [2, 1, 6], [4, 4, 0]])
    expected = distance_to_nearest_object(boxes, evaluated)
    monkeypatch.setattr(object_distance, "MAX_BOUNDED", max_bounded)
    monkeypatch.setattr(object_distance, "MAX_MEASURED", max_measured)
    assert distance_to_nearest_object(boxes, evaluated).equal(expected)


@given(seed=st.integers(0, 2**31))
def test_a_batch_acts_as_its_members(seed: int) -> None:
    """Three scenarios, of which there are two rollouts."""
    boxes = crowds(seed, (2, 3), 6, 4, extent=15.0, origin=8e3)
    evaluated = torch.randint(6, (3, 2), generator=torch.Generator().manual_seed(seed))
    whole = distance_to_nearest_object(boxes, evaluated)
    assert whole.shape == (2, 3, 2, 4)
    for rollout in range(2):
        for scene in range(3):
            member = boxes.map(lambda tensor, at=(rollout, scene): tensor[at])
            one = distance_to_nearest_object(member, evaluated[scene])
            assert one.equal(whole[rollout, scene])


@given(seed=st.integers(0, 2**31))
def test_permuting_agents_permutes_the_result(seed: int) -> None:
    boxes = crowds(seed, (), 9, 3, extent=15.0, origin=8e3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    expected = distance_to_nearest_object(boxes, torch.arange(9))[order]
    shuffled = boxes.map(lambda tensor: tensor[order])
    assert distance_to_nearest_object(shuffled, torch.arange(9)).equal(expected)


@given(seed=st.integers(0, 2**31))
def test_absent_agents_change_nothing(seed: int) -> None:
    boxes = crowds(seed, (), 6, 3, extent=15.0, origin=8e3)
    absent = crowds(seed + 1, (), 4, 3, extent=15.0, origin=8e3)
    absent = absent.replace(valid=torch.zeros_like(absent.valid))
    padded = BoxTrajectory.cat([boxes, absent])
    expected = distance_to_nearest_object(boxes, torch.arange(6))
    assert distance_to_nearest_object(padded, torch.arange(6)).equal(expected)
    assert (distance_to_nearest_object(padded, torch.arange(6, 10)) == NO_OBJECT).all()


def moved(boxes: BoxTrajectory) -> BoxTrajectory:
    return boxes.replace(x=boxes.x + 300, y=boxes.y - 200)


def turned(boxes: BoxTrajectory) -> BoxTrajectory:
    cos, sin = math.cos(0.7), math.sin(0.7)
    return boxes.replace(
        x=cos * boxes.x - sin * boxes.y,
        y=sin * boxes.x + cos * boxes.y,
        heading=boxes.heading + 0.7,
    )


@pytest.mark.parametrize("motion", [moved, turned])
@given(seed=st.integers(0, 2**31))
def test_moving_and_turning_the_scene_changes_nothing(
    motion: Callable[[BoxTrajectory], BoxTrajectory], seed: int
) -> None:
    boxes = crowds(seed, (), 8, 3, extent=15.0)
    # Slivers lose their shape to rounding.
    whole = torch.minimum(boxes.length, boxes.width) > 0.3
    boxes = boxes.replace(valid=boxes.valid & whole)
    expected = distance_to_nearest_object(boxes, torch.arange(8))
    found = distance_to_nearest_object(motion(boxes), torch.arange(8))
    # Whether cores that only just overlap do so is up to rounding, and so is nothing else: the
    # distance passes through minus both radii there without a jump.
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", [(0, 4, 3, 2), (2, 4, 0, 2), (2, 4, 3, 0), (2, 0, 0, 2)])
def test_nothing_asked_is_nothing_answered(shape: tuple[int, int, int, int]) -> None:
    scenes, agents, evaluated, steps = shape
    boxes = trajectory(
        torch.zeros(5, scenes, agents, steps), torch.ones(scenes, agents, steps, dtype=torch.bool)
    )
    asked = torch.zeros(scenes, evaluated, dtype=torch.int64)
    assert distance_to_nearest_object(boxes, asked).shape == (scenes, evaluated, steps)


@pytest.mark.parametrize("rounding", [-0.1, 1.0, math.nan])
def test_impossible_corners_are_refused(rounding: float) -> None:
    boxes = crowds(0, (), 2, 1, extent=5.0)
    with pytest.raises(ValueError, match="wanted 0 <= rounding < 1"):
        distance_to_nearest_object(boxes, torch.arange(2), rounding=rounding)


@pytest.mark.parametrize("batch", [(2,), (2, 2), (3, 2, 3)])
def test_agents_of_other_scenarios_are_refused(batch: tuple[int, ...]) -> None:
    boxes = crowds(0, (2, 3), 2, 1, extent=5.0)
    with pytest.raises(ValueError, match="a batch that ends in"):
        distance_to_nearest_object(boxes, torch.zeros(*batch, 1, dtype=torch.int64))


# Against WOSAC's own figures.

SCENARIO_ID = "637f20cafde22ff8"
CASES = ("a_log_replay", "b_constant_velocity", "c_log_noise", "e_accelerate", "t_test_submission")


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(shared_path(f"golden/wosac/{SCENARIO_ID}_{name}.npz")) as file:
        return dict(file)


def sim_agents() -> tuple[Tensor, BoxTrajectory]:
    """Reads ids and logged boxes, in float32 as in the file."""
    data = shared_path("data/womd_scenario_proto/motion_data_one_scenario.tfrecord")
    scenario: Scenario = next(iter(open_scenarios(data)))
    present = scenario.log.valid[:, 10]
    log, valid = scenario.log.map(lambda tensor: tensor[present]), scenario.log.valid[present]
    xyz = torch.cat([log.xy, log.z[..., None]], dim=-1) + scenario.origin
    fields = [*xyz.unbind(-1), log.heading, *scenario.log_size[present].unbind(-1)]
    fields = [torch.where(valid, field, 0).float() for field in fields]
    named = dict(zip((*POSE, *SIZE), fields, strict=True))
    return scenario.agents.agent_id[present], BoxTrajectory(**named, valid=valid)


def with_size_of_step_10(log: BoxTrajectory) -> BoxTrajectory:
    return log.replace(**{name: getattr(log, name)[:, 10:11].expand_as(log.x) for name in SIZE})


def rollouts(case: str, agent_id: Tensor, sized: BoxTrajectory, count: int) -> BoxTrajectory:
    """Joins the rollouts of a case with the sizes of logged boxes."""
    arrays = golden(f"{case}_sim")
    order = [arrays["object_id"].tolist().index(one) for one in agent_id.tolist()]
    poses = {name: torch.as_tensor(arrays[name][:count, order]) for name in POSE}
    shape = poses["x"].shape
    sizes = {name: getattr(sized, name)[:, : shape[-1]].expand(shape) for name in SIZE}
    return BoxTrajectory(**poses, **sizes, valid=torch.ones(shape, dtype=torch.bool))


def golden_boxes(case: str) -> tuple[Tensor, BoxTrajectory]:
    agent_id, log = sim_agents()
    sized = with_size_of_step_10(log)
    if case == "log":
        return agent_id, sized.slice(11, 91).map(lambda tensor: tensor[None])
    if case == "g_scenario_gen_log":
        present = torch.ones_like(log.valid)
        return agent_id, log.replace(valid=present).map(lambda tensor: tensor[None])
    return agent_id, rollouts(case, agent_id, sized, 2)


@pytest.mark.parametrize(
    ("case", "version"),
    [
        *[(case, "") for case in (*CASES, "log", "g_scenario_gen", "g_scenario_gen_log")],
        *[(case, "_2023") for case in (*CASES, "log")],
    ],
)
def test_every_figure_is_that_of_wosac(case: str, version: str) -> None:
    expected = golden(f"{case}_features{version}")
    agent_id, boxes = golden_boxes(case)
    evaluated = torch.tensor(
        [agent_id.tolist().index(one) for one in expected["object_id"].tolist()]
    )
    rounding = 0.0 if version else 0.7
    distance = distance_to_nearest_object(boxes, evaluated, rounding=rounding)
    np.testing.assert_array_equal(distance.numpy(), expected["distance_to_nearest_object"])
    np.testing.assert_array_equal((distance < 0).numpy(), expected["collision_per_step"])
