"""Small scenes whose every number can be checked by hand."""

import math

import torch

from catk_sim.constants import NUM_STEPS, STEP_SECONDS
from catk_sim.datatypes import (
    AgentMetadata,
    AgentType,
    LaneLinks,
    MapFeatureType,
    RoadGraph,
    Scenario,
    TrafficLights,
    Trajectory,
)
from catk_sim.tokens import MotionVocabulary


def two_cars() -> Trajectory:
    """Two cars at 10 m/s for five steps. The second leaves after three.

      ^ y
      |    B            A: drives east from the origin
      |    |            B: drives south from (5, 10)
    --A----v---> x
    """
    east = torch.tensor([1.0, 0.0])
    south = torch.tensor([0.0, -1.0])
    start = torch.tensor([[0.0, 0.0], [5.0, 10.0]])
    direction = torch.stack([east, south])
    travelled = torch.arange(5.0)  # metres: 10 m/s for 0.1 s a step

    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[1, 3:] = False
    return Trajectory(
        xy=start[:, None] + travelled[None, :, None] * direction[:, None],
        z=torch.zeros(2, 5),
        heading=torch.tensor([[0.0], [-math.pi / 2]]).expand(2, 5),
        velocity=(10 * direction)[:, None].expand(2, 5, 2),
        valid=valid,
    )


def random_motion(seed: int, num_agents: int = 3, num_steps: int = 4) -> Trajectory:
    """Agents anywhere within a kilometre, heading and jumping anywhere. Not drivable."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    return Trajectory(
        xy=uniform(-1000, 1000, num_agents, num_steps, 2),
        z=uniform(-10, 10, num_agents, num_steps),
        heading=uniform(-math.pi, math.pi, num_agents, num_steps),
        velocity=uniform(-30, 30, num_agents, num_steps, 2),
        valid=uniform(0, 1, num_agents, num_steps) > 0.2,
    )


def agents_of(types: list[AgentType]) -> AgentMetadata:
    """Agents of class size; the first is the sdc and the only one to predict."""
    sizes = {
        AgentType.VEHICLE: [4.8, 2.0, 1.5],
        AgentType.PEDESTRIAN: [1.0, 1.0, 1.8],
        AgentType.CYCLIST: [2.0, 1.0, 1.8],
    }
    first = torch.arange(len(types)) == 0
    return AgentMetadata(
        agent_id=torch.arange(100, 100 + len(types)),
        type=torch.tensor([int(kind) for kind in types]),
        size=torch.tensor([sizes.get(kind, [2.0, 2.0, 2.0]) for kind in types]),
        is_sdc=first,
        to_predict=first,
        difficulty=torch.zeros(len(types), dtype=torch.int64),
        of_interest=torch.zeros(len(types), dtype=torch.bool),
        valid=torch.ones(len(types), dtype=torch.bool),
    )


def straight_road() -> Scenario:
    """Three agents on a two-lane road, for a whole scenario of 91 steps.

      y =  4  ------------------------------ road edge, runs west (road on its left)
      y =  2  <- - - - - - - - - - - - - - - lane 2, runs west
                     B (pedestrian, stands at (10, 6), off the road)
      y = -2  A - -> - - - - C> - - - - - -  lane 1, runs east; a light at x = 60 turns red
      y = -4  ------------------------------ road edge, runs east (road on its left)

    A: a car, from (-40, -2) at 10 m/s east; the sdc. At the current step it is at (-30, -2).
    C: a car, parked at (40, -2). It enters at step 6 and leaves after step 60.
    """
    steps = torch.arange(NUM_STEPS, dtype=torch.float32)
    xy = torch.zeros(3, NUM_STEPS, 2)
    xy[0, :, 0] = -40 + 10 * STEP_SECONDS * steps
    xy[0, :, 1] = -2
    xy[1] = torch.tensor([10.0, 6.0])
    xy[2] = torch.tensor([40.0, -2.0])
    velocity = torch.zeros(3, NUM_STEPS, 2)
    velocity[0, :, 0] = 10
    valid = torch.ones(3, NUM_STEPS, dtype=torch.bool)
    valid[2, :6] = False
    valid[2, 61:] = False
    agents = agents_of([AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.VEHICLE])
    return Scenario(
        scenario_id=("straight_road",),
        lacks=("",),
        origin=torch.zeros(3),
        timestamps=steps * STEP_SECONDS,
        log=Trajectory(
            xy=xy,
            z=torch.zeros(3, NUM_STEPS),
            heading=torch.zeros(3, NUM_STEPS),
            velocity=velocity,
            valid=valid,
        ),
        log_size=agents.size[:, None].expand(3, NUM_STEPS, 3).contiguous(),
        agents=agents,
        roadgraph=_two_lanes(),
        traffic_lights=_light(),
    )


def _two_lanes() -> RoadGraph:
    x = torch.arange(-100.0, 101.0, 2.0)
    # Height y and direction of each polyline.
    features = [(-2.0, 1), (2.0, -1), (-4.0, 1), (4.0, -1)]
    xyz = torch.cat(
        [
            torch.stack([direction * x, torch.full_like(x, y), torch.zeros_like(x)], dim=-1)
            for y, direction in features
        ]
    )
    num_points = x.shape[0]
    return RoadGraph(
        xyz=xyz,
        feature=torch.arange(4).repeat_interleave(num_points),
        point_valid=torch.ones(4 * num_points, dtype=torch.bool),
        feature_id=torch.tensor([1, 2, 3, 4]),
        feature_type=torch.tensor(
            [int(MapFeatureType.LANE_SURFACE_STREET)] * 2
            + [int(MapFeatureType.ROAD_EDGE_BOUNDARY)] * 2
        ),
        speed_limit=torch.tensor([25.0, 25.0, 0.0, 0.0]),
        interpolating=torch.zeros(4, dtype=torch.bool),
        feature_valid=torch.ones(4, dtype=torch.bool),
        links=LaneLinks(
            feature=torch.zeros(0, dtype=torch.int64),
            type=torch.zeros(0, dtype=torch.int64),
            other_id=torch.zeros(0, dtype=torch.int64),
            span=torch.zeros(0, 4, dtype=torch.int64),
            boundary_type=torch.zeros(0, dtype=torch.int64),
            neighbor=torch.zeros(0, dtype=torch.int64),
            valid=torch.zeros(0, dtype=torch.bool),
        ),
    )


def _light() -> TrafficLights:
    state = torch.full((1, NUM_STEPS), 6)
    state[:, 40:] = 4
    return TrafficLights(
        lane_id=torch.tensor([1]),
        state=state,
        stop_xyz=torch.tensor([60.0, -2.0, 0.0]).expand(1, NUM_STEPS, 3).contiguous(),
        valid=torch.ones(1, NUM_STEPS, dtype=torch.bool),
    )


def arc_vocabulary(num_speeds: int = 16, num_turns: int = 7) -> MotionVocabulary:
    """Half-second arcs: speeds from 0 to 15 m/s, turns of up to half a radian, for every type.

    Token 0 stands still. Token `speed * num_turns + turn + 1` goes at that speed and turns by that
    much.
    """
    speed = torch.linspace(0, 15, num_speeds)[:, None, None]
    turn = torch.linspace(-0.5, 0.5, num_turns)[None, :, None]
    time = torch.linspace(0, 0.5, 6)
    rate = turn / 0.5
    heading = (rate * time).expand(num_speeds, num_turns, 6)
    # Along an arc of constant rate; the chord leads at half the turn.
    chord = speed * time * torch.sinc(heading / (2 * math.pi))
    arcs = torch.stack(
        [chord * torch.cos(heading / 2), chord * torch.sin(heading / 2), heading], dim=-1
    ).reshape(-1, 6, 3)
    poses = torch.cat([torch.zeros(1, 6, 3), arcs])
    return MotionVocabulary(
        poses=poses.expand(3, -1, 6, 3).contiguous(),
        size=torch.tensor([[4.8, 2.0], [1.0, 1.0], [2.0, 1.0]]),
        digest="arcs",
    )
