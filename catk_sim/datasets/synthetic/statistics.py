"""Command: compares data sources, `python -m catk_sim.datasets.synthetic.statistics A B`."""

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor

from catk_sim.command import DEBUG, run_command
from catk_sim.constants import CURRENT_STEP, STEP_SECONDS
from catk_sim.datasets.sources import open_scenarios
from catk_sim.datatypes import AgentType, MapFeatureType, Scenario, Trajectory
from catk_sim.geometry.se2 import rotate, wrap_angle
from catk_sim.metrics.collision import collision_indication
from catk_sim.metrics.offroad import offroad_indication

STANDING = 0.5
"""Vehicles that never are faster than this (m/s) are stationary."""

MOVING = 1.0
"""Speeds, accelerations and yaw rates are those of vehicles that are faster than this (m/s)."""

EVERY = 10
"""Off-road and collision rates are those of every tenth step."""

Values = dict[str, Tensor]


def measure(scenario: Scenario) -> Values:
    """Lists the values that a scenario contributes to each statistic."""
    return {
        **_counts(scenario),
        **_map_counts(scenario),
        **_motion(scenario),
        **_gaps(scenario),
        **_faults(scenario),
    }


def summarise(scenarios: Iterator[Scenario]) -> dict[str, float]:
    """Summarises a source: medians and shares, in the order in which the table shows them."""
    values: Mapping[str, list[Tensor]] = defaultdict(list)
    for scenario in scenarios:
        for name, value in measure(scenario).items():
            values[name].append(value.reshape(-1).double())
    table: dict[str, float] = {}
    for name, parts in values.items():
        together = torch.cat(parts)
        if name.endswith("scene"):
            for quantile, word in ((0.5, "median"), (0.9, "90 %")):
                table[f"{name}, {word}"] = _quantile(together, quantile)
        elif name.startswith("share"):
            table[name] = float(together.mean())
        else:
            for quantile, word in ((0.5, "median"), (0.95, "95 %")):
                table[f"{name}, {word}"] = _quantile(together, quantile)
    return table


def _quantile(values: Tensor, share: float) -> float:
    if not len(values):
        return float("nan")
    return float(values.sort().values[min(len(values) - 1, int(share * len(values)))])


def _counts(scenario: Scenario) -> Values:
    types, valid = scenario.agents.type, scenario.log.valid
    speed = scenario.log.velocity.norm(dim=-1).masked_fill(~valid, 0.0)
    vehicles = types == AgentType.VEHICLE
    stands = speed.amax(-1) < STANDING
    return {
        "tracks per scene": torch.tensor(float(len(types))),
        "agents at the current step per scene": valid[:, CURRENT_STEP].sum(),
        "vehicles per scene": vehicles.sum(),
        "moving vehicles per scene": (vehicles & ~stands).sum(),
        "pedestrians per scene": (types == AgentType.PEDESTRIAN).sum(),
        "cyclists per scene": (types == AgentType.CYCLIST).sum(),
        "agents to predict per scene": scenario.agents.to_predict.sum(),
        "share of stationary vehicles": stands[vehicles],
        "share of valid track steps": valid,
    }


def _map_counts(scenario: Scenario) -> Values:
    codes, points = scenario.roadgraph.feature_type, scenario.roadgraph.point_type
    kinds = {
        "lanes": MapFeatureType.is_lane,
        "road lines": MapFeatureType.is_road_line,
        "road edges": MapFeatureType.is_road_edge,
    }
    values: Values = {"map points per scene": torch.tensor(float(len(points)))}
    for name, is_kind in kinds.items():
        values[f"{name} per scene"] = is_kind(codes).sum()
        values[f"points of {name} per scene"] = is_kind(points).sum()
    for name, code in (
        ("stop signs", MapFeatureType.STOP_SIGN),
        ("crosswalks", MapFeatureType.CROSSWALK),
        ("speed bumps", MapFeatureType.SPEED_BUMP),
        ("driveways", MapFeatureType.DRIVEWAY),
    ):
        values[f"{name} per scene"] = (codes == code).sum()
    return values


def _motion(scenario: Scenario) -> Values:
    log, types = scenario.log, scenario.agents.type
    speed = log.velocity.norm(dim=-1)
    both = log.valid[:, 1:] & log.valid[:, :-1]
    acceleration = speed.diff(dim=-1).abs() / STEP_SECONDS
    yaw_rate = wrap_angle(log.heading.diff(dim=-1)).abs() / STEP_SECONDS
    vehicle = (types == AgentType.VEHICLE)[:, None]
    moves = both & vehicle & (speed[:, 1:] > MOVING)
    walks = log.valid & (types == AgentType.PEDESTRIAN)[:, None]
    rides = log.valid & (types == AgentType.CYCLIST)[:, None]
    sdc = log.valid & scenario.agents.is_sdc[:, None]
    return {
        "speed of moving vehicles (m/s)": speed[log.valid & vehicle & (speed > MOVING)],
        "speed of the sdc (m/s)": speed[sdc],
        "speed of pedestrians (m/s)": speed[walks],
        "speed of cyclists (m/s)": speed[rides],
        "acceleration, absolute (m/s^2)": acceleration[moves],
        "yaw rate, absolute (rad/s)": yaw_rate[moves],
    }


def _gaps(scenario: Scenario) -> Values:
    """Gaps at the current step: to the nearest agent, and to the vehicle ahead in one's lane."""
    now: Trajectory = scenario.log.at(CURRENT_STEP)
    here = now.valid[:, 0]
    xy, heading = now.xy[here, 0], now.heading[here, 0]
    size, types = scenario.agents.size[here], scenario.agents.type[here]
    speed = now.velocity[here, 0].norm(dim=-1)
    delta = xy[None] - xy[:, None]
    distance = delta.norm(dim=-1).fill_diagonal_(torch.inf)
    local = rotate(delta, -heading[:, None].expand(distance.shape))
    vehicle = types == AgentType.VEHICLE
    same_way = (heading[None] - heading[:, None]).cos() > 0.8
    ahead = (local[..., 0] > 0) & (local[..., 1].abs() < 1.5) & same_way & vehicle
    gap = local[..., 0] - (size[:, None, 0] + size[None, :, 0]) / 2
    gap = gap.masked_fill(~ahead, torch.inf).amin(-1, keepdim=True) if len(xy) else gap
    follows = (vehicle & (speed > MOVING))[:, None] & (gap < 60.0)
    nearest = distance.amin(-1) if len(xy) else distance
    return {
        "distance to the nearest agent (m)": nearest[nearest < torch.inf],
        "gap of moving vehicles to the vehicle ahead (m)": gap[follows],
    }


def _faults(scenario: Scenario) -> Values:
    log = scenario.log
    steps = range(0, log.num_steps, EVERY)
    some = Trajectory.join([log.at(step) for step in steps])
    vehicle = (scenario.agents.type == AgentType.VEHICLE)[:, None] & some.valid
    speed = some.velocity.norm(dim=-1)
    offroad = offroad_indication(some, scenario).value
    collides = collision_indication(some, scenario).value
    return {
        "share of vehicle steps off the road": offroad[vehicle],
        "share of moving vehicles' steps off the road": offroad[vehicle & (speed > MOVING)],
        "share of agent steps with an overlap": collides[some.valid],
    }


def format_table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Lays summaries out as a Markdown table, one column a source."""
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "--:|" * len(columns)]
    for name in next(iter(columns.values())):
        cells = [f"{column[name]:.3g}" for column in columns.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class StatisticsConfig:
    """Compares the traffic and the maps of data sources."""

    sources: tyro.conf.Positional[tuple[str, ...]]
    """What to compare: anything that `--data` accepts, such as synthetic:200."""

    def __post_init__(self) -> None:
        """Refuses an empty comparison."""
        if not self.sources:
            raise ValueError("wanted at least one source, got none")


def main(arguments: list[str]) -> None:
    """Runs the command."""
    config = tyro.cli(
        StatisticsConfig,
        args=arguments,
        prog="python -m catk_sim.datasets.synthetic.statistics",
        description=f"{StatisticsConfig.__doc__} {DEBUG}",
    )
    columns = {name: summarise(iter(open_scenarios(name))) for name in config.sources}
    sys.stdout.write(format_table(columns) + "\n")


if __name__ == "__main__":
    sys.exit(run_command(main))
