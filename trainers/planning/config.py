"""Who drives the ego, in which traffic, on what."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from catk_sim.datatypes import AgentType
from catk_sim.extras import needs_extra
from catk_sim.metrics.summary import GROUPS
from catk_sim.planning.drivers import EgoDriver, PlannerDriver, PolicyDriver
from catk_sim.planning.loading import PROCESS, load_planner, parse_planner
from catk_sim.planning.planner import Planner
from catk_sim.planning.simulation import TrafficGroup
from catk_sim.planning.tracking import TRACKERS
from catk_sim.rollout import Policy
from trainers.configs import RolloutConfig

MakePolicy = Callable[[str], Policy[Any]]
"""Makes a policy by its name or from its folder."""

REPLAYS = ("log", "log_replay")
"""Names of traffic that replays the log."""


@dataclass(frozen=True, kw_only=True)
class PlannerEvaluationConfig:
    """Who drives the ego, in which traffic, on what."""

    planner: tyro.conf.UseAppendAction[tuple[str, ...]]
    """Who drives the ego. May be given several times."""

    traffic: str = "log"
    """Who drives the others: `log`, which replays them; a policy's name or folder, or yours, as
    `path/to/file.py:Policy` or `package.module:Policy`; or one of these for each type, such as
    `vehicle=idm,pedestrian=log`. What is not named replays the log. Arguments follow a policy, as
    in `idm,time_headway=1` or `vehicle=idm,time_headway=1,pedestrian=log`."""

    data: str = "synthetic:32:1"
    """Scenarios to drive. See the trainers' `--data`."""

    output: Path = Path("runs/planning")
    """Folder for `metrics.json`, the table of scenarios and films."""

    cache: Path = Path("runs/cache")
    """Folder for parsed scenarios, so that a source is read once."""

    on_error: Literal["raise", "skip"] = "raise"
    """Whether a bad record ends the run, or is counted, listed and left out."""

    tracker: Literal["exact", "bicycle"] = "exact"
    """How plans are followed: to the pose, or by a kinematic bicycle with limits."""

    time_limit: float | None = None
    """Seconds that a planner may take for a plan. A policy, which drives a whole batch at once, is
    timed and not limited."""

    rollouts: Annotated[RolloutConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: RolloutConfig(num_rollouts=1)
    )

    scenario: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Ids of scenarios: only these. Draws are those of the whole run."""

    table: Literal["csv", "parquet"] = "csv"
    """Format of the table of scenarios."""

    render: int = 0
    """Films to make of each planner, of its worst scenarios."""

    report_scenes: int = 20
    """Scenarios that can be played in `report.html`, with 4 rollouts at most. It tells of all."""

    seed: int = 0
    """Seed of every random draw."""

    device: str = "auto"
    """`auto` is the first GPU if there is one, else the CPU. Planners are on the CPU."""

    cpu_threads: int = 1
    """Threads that torch may use on the CPU."""

    def __post_init__(self) -> None:
        if not self.planner:
            raise ValueError("wanted at least one planner, got none")
        if self.time_limit is not None and not self.time_limit > 0:
            raise ValueError(f"time_limit must be above 0 s, got {self.time_limit}")
        if self.table == "parquet":
            with needs_extra("parquet", "a Parquet table"):
                import_module("pyarrow")
        if self.render < 0:
            raise ValueError(f"render must be at least 0, got {self.render}")


def parse_traffic(text: str, make_policy: MakePolicy) -> tuple[TrafficGroup, ...]:
    """Reads who drives the traffic: `POLICY`, or `TYPE=POLICY,TYPE=POLICY`.

    Arguments follow a policy as `,key=value`. A key that is a type of agent begins the next policy.

    Raises:
        ValueError: There is no such type of agent, it is named twice, or there is no such policy.
    """
    types_of: dict[str, set[AgentType]] = {}
    for group, policy in _policies_of_groups(text).items():
        types_of.setdefault(policy, set()).update(GROUPS[group])
    return tuple(
        TrafficGroup(policy=make_policy(policy), types=frozenset(types))
        for policy, types in types_of.items()
        if not _replays(policy)
    )


def _policies_of_groups(text: str) -> dict[str, str]:
    policies: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if equals and key in GROUPS:
            if key in policies or ("all" in (key, *policies) and policies):
                raise ValueError(f"wanted one policy for each type of agent, got {text!r}")
            policies[key] = value
        elif policies and equals:
            policies[list(policies)[-1]] += f",{part}"
        elif policies or (equals and key.isidentifier()):
            raise ValueError(
                f"wanted traffic as POLICY or TYPE=POLICY,..., arguments after a policy as "
                f",key=value, and the types {', '.join(GROUPS)}; got {text!r}"
            )
        else:
            policies["all"] = part.strip()
    return policies


def _replays(policy: str) -> bool:
    name, _, arguments = policy.partition(",")
    if name in REPLAYS and arguments:
        raise ValueError(f"traffic that replays the log takes no arguments, got {policy!r}")
    return name in REPLAYS


def load_driver(text: str, config: PlannerEvaluationConfig, make_policy: MakePolicy) -> EgoDriver:
    """Makes who drives the ego. See `load_planner`.

    A folder, or a file of Stable-Baselines3 that ends in .zip, is a policy that was trained.

    Raises:
        ValueError: There is no such planner.
    """
    if Path(text).is_dir():
        return PolicyDriver(make_policy(text), Path(text).as_posix())
    spec, options = parse_planner(text)
    if spec.endswith(".zip") and not spec.startswith(PROCESS):
        return PolicyDriver(make_policy(text), Path(text).as_posix())
    made = load_planner(spec, **options)
    if not isinstance(made, Planner):
        return PolicyDriver(made, text)
    ready = [made]  # To see what it is, the first one had to be made.

    def make() -> Planner:
        planner = ready.pop() if ready else load_planner(spec, **options)
        assert isinstance(planner, Planner)
        return planner

    tracker = TRACKERS[config.tracker]()
    return PlannerDriver(make, tracker=tracker, time_limit=config.time_limit)


def load_drivers(config: PlannerEvaluationConfig, make_policy: MakePolicy) -> dict[str, EgoDriver]:
    """Makes all who drive the ego, by the names they have in tables."""
    drivers: dict[str, EgoDriver] = {}
    for text in config.planner:
        driver = load_driver(text, config, make_policy)
        name = driver.name if driver.name not in drivers else f"{driver.name} ({text})"
        if name in drivers:
            raise ValueError(f"wanted different planners, got {text} twice")
        drivers[name] = driver
    return drivers
