"""Planners of anybody are evaluated by one command."""

import csv
import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catk_sim.command import FAILED, run_command
from catk_sim.datasets import open_scenarios
from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.datatypes import AgentType
from catk_sim.planning.adapters import FunctionPlanner
from catk_sim.planning.drivers import PlannerDriver, PolicyDriver
from catk_sim.planning.tracking import KinematicBicycle
from catk_sim.rollout import Policy, rollout
from policies.checkpoint import save_checkpoint
from policies.ego_gmm.config import MixtureConfig
from policies.ego_gmm.model import EgoGMM
from policies.idm import IDM
from policies.log_replay import LogReplay
from policies.registry import make_policy
from policies.smart.config import SMARTConfig
from policies.smart.model import SMART
from tests.catk_sim.planning.planners import Failing, Oracle, straight_on
from tests.scenes import arc_vocabulary, straight_road
from trainers import evaluate
from trainers.benchmark import Benchmark
from trainers.configs import RolloutConfig
from trainers.planning.command import render_command
from trainers.planning.config import (
    PlannerEvaluationConfig,
    load_driver,
    load_drivers,
    parse_traffic,
)
from trainers.planning.evaluator import Measured, PlannerEvaluator
from trainers.planning.films import Films

DATA = "synthetic:2"

THEIRS = '''
"""Somebody's planner, who knows nothing of the project but its description."""

import numpy as np


class Planner:
    """Drives along the route at the speed that it has."""

    name = "theirs"
    requires_log = False

    def __init__(self, factor=1.0):
        self.factor = factor

    def initialize(self, context):
        self.route = context.route
        self.dt = context.step_seconds

    def plan(self, input):
        import torch

        here = torch.tensor(input.ego.xy[-1:], dtype=torch.float32)
        arc, _ = self.route.project(here)
        speed = self.factor * float(np.hypot(*input.ego.velocity[-1]))
        xy, heading = self.route.pose_at(arc + speed * self.dt * torch.arange(1, 31))
        return np.concatenate([xy.numpy(), heading[:, None].numpy()], axis=1)


def broken(input):
    if input.step == 4:
        raise RuntimeError("out of ideas")
    return [[*input.ego.xy[-1], input.ego.heading[-1]]] * 3
'''


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.py"
    path.write_text(THEIRS)
    return path


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[None]:
    """The same file as a package that is installed, with an entry point."""
    site = tmp_path / "site"
    about = site / "somebodys_planner-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "somebodys_planner.py").write_text(THEIRS)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-planner\nVersion: 1.0")
    (about / "entry_points.txt").write_text("[catk_sim.planners]\nsome = somebodys_planner:Planner")
    sys.path.insert(0, str(site))
    yield
    sys.path.remove(str(site))
    sys.modules.pop("somebodys_planner", None)


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens data, which may take minutes to prepare, fails."""

    def prepare(*_: object, **__: object) -> None:
        raise AssertionError("data was opened")

    monkeypatch.setattr(evaluate, "prepare_if_needed", prepare)


def run(cache: Path, output: Path, *args: str) -> dict[str, Any]:
    evaluate.main([*args, "--cache", str(cache), "--output", str(output), "--device", "cpu"])
    return json.loads((output / "metrics.json").read_text())


def rows_of(output: Path) -> list[dict[str, str]]:
    with (output / "scenarios.csv").open() as table:
        return list(csv.DictReader(table))


@pytest.mark.slow
def test_a_planner_from_outside_is_evaluated_by_path_and_by_entry_point(
    installed: None, file: Path, cache: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    planners = [f"{file}:Planner", "some", "some,factor=0.0", f"{file}:broken"]
    flags = [flag for planner in planners for flag in ("--planner", planner)]
    record = run(cache, output, *flags, "--data", DATA)
    by_path, by_name, slow, broken = record["planners"].values()

    assert list(record["planners"]) == [
        "theirs",
        "theirs (some)",
        "theirs (some,factor=0.0)",
        "broken",
    ]
    assert by_path["measures"] == by_name["measures"]
    assert by_path["failures"] == []
    assert by_path["plan_seconds"]["calls"] == 160
    assert by_path["plan_seconds"]["max"] >= by_path["plan_seconds"]["p95"] > 0
    assert by_path["measures"]["progress"]["mean"] > slow["measures"]["progress"]["mean"]
    differences = slow["differences_to_first"]["progress"]
    expected = slow["measures"]["progress"]["mean"] - by_path["measures"]["progress"]["mean"]
    assert differences["mean"] == pytest.approx(expected)

    assert [failure["step"] for failure in broken["failures"]] == [4, 4]
    assert "out of ideas (theirs.py:" in broken["failures"][0]["reason"]
    assert "Traceback" in broken["failures"][0]["details"]
    assert broken["measures"]["failed"]["mean"] == 1
    assert broken["measures"]["score"]["mean"] == 0

    rows = rows_of(output)
    ids = [scenario.scenario_id[0] for scenario in open_scenarios(DATA)]
    assert [(row["planner"], row["scenario_id"]) for row in rows] == [
        (planner, scenario_id) for planner in record["planners"] for scenario_id in ids
    ]
    assert rows[-1]["failure"].startswith("step 4: RuntimeError: out of ideas")
    assert rows[0]["failure"] == ""


@pytest.mark.slow
def test_what_is_printed_tells_what_to_do_next(
    file: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    run(cache, output, "--planner", f"{file}:broken", "--data", DATA, "--render", "1")
    printed = capsys.readouterr().out
    assert "broken failed in synthetic-" in printed
    assert "at step 4: RuntimeError: out of ideas" in printed
    (film,) = (output / "films").iterdir()
    assert film.name.startswith("broken-synthetic-")

    (command,) = [line for line in printed.splitlines() if "python -m trainers.evaluate" in line]
    again = shlex.split(command)[3:]
    evaluate.main([*again, "--device", "cpu"])
    printed = capsys.readouterr().out
    worst = film.stem.removeprefix("broken-")
    assert (output / "scenarios" / worst / "films" / film.name).is_file()
    assert "1 scenarios of synthetic:2" in printed


@pytest.mark.slow
def test_a_checkpoint_drives_the_ego_and_the_traffic(cache: Path, tmp_path: Path) -> None:
    model = SMART(
        SMARTConfig(hidden_dim=16, num_map_layers=1, num_agent_layers=1), arc_vocabulary()
    )
    folder = tmp_path / "policy"
    save_checkpoint(folder, model, model.vocabulary)
    record = run(
        *(cache, tmp_path / "out", "--planner", str(folder), "--data", DATA),
        *("--traffic", f"vehicle={folder},pedestrian=log"),
    )
    (figures,) = record["planners"].values()
    # 16 tokens, for both scenarios at once.
    assert figures["plan_seconds"]["calls"] == 16
    assert figures["failures"] == []


@pytest.mark.slow
def test_an_ego_policy_drives_the_ego_and_nobody_else(cache: Path, tmp_path: Path) -> None:
    config = SMARTConfig(hidden_dim=16, num_map_layers=1, num_agent_layers=1)
    model = EgoGMM(config, MixtureConfig(), arc_vocabulary())
    folder = tmp_path / "policy"
    save_checkpoint(folder, model, model.vocabulary)
    data = ("--data", "synthetic:1")
    record = run(cache, tmp_path / "out", "--planner", str(folder), *data)
    (figures,) = record["planners"].values()
    assert figures["failures"] == []
    assert figures["plan_seconds"]["calls"] == 16
    with pytest.raises(ValueError, match="drives the sdc alone"):
        run(cache, tmp_path / "out", "--planner", "idm", "--traffic", str(folder), *data)


def test_policies_are_still_evaluated_without_the_flag(cache: Path, tmp_path: Path) -> None:
    record = run(cache, tmp_path, "constant_velocity", "--data", "synthetic:1")
    assert list(record["policies"]) == ["constant_velocity"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["runs/absent"], "got 'runs/absent', which is no folder"),
        (["idm", "absent.py:Mine"], "wanted the planner or policy absent.py:Mine"),
        (["idm,speed=1"], "idm cannot be made with speed=1"),
        (["--planner", "nobody"], "there is no planner 'nobody'"),
        (["--planner", "idm", "--traffic", "nobody"], "got 'nobody', which is no folder"),
        (["--planner", "a.py:A,python=/no/python"], "got python=/no/python, where there is none"),
        (["--planner", "process:false"], "false gave exit code 1"),
        (["--planner", "idm", "--table", "parquet"], "needs more: pip install 'catk-sim[parquet]'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_data_is_opened(
    arguments: list[str],
    complaint: str,
    no_data: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # As if it were not installed.
    assert run_command(evaluate.main, arguments) == FAILED
    told = capsys.readouterr().err
    assert complaint in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_there_is_help(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate.main(["--planner", flag])
    printed = capsys.readouterr().out
    for word in ("--traffic", "--tracker", "--time-limit", "--max-scenarios", "--num-rollouts"):
        assert word in printed


def benchmark_of(
    *, num_scenarios: int = 2, num_rollouts: int = 1, batch_size: int = 2
) -> Benchmark:
    return Benchmark(
        scenarios=[generate_scenario(seed) for seed in range(num_scenarios)],
        indices=range(num_scenarios),
        rollouts=RolloutConfig(num_rollouts=num_rollouts, batch_size=batch_size),
        seed=0,
        device=torch.device("cpu"),
    )


def straight() -> PlannerDriver:
    return PlannerDriver(lambda: FunctionPlanner(straight_on))


def named(name: str) -> Policy[Any]:
    return make_policy(name)


def measured(driver: Any, benchmark: Benchmark, **options: Any) -> Measured:
    evaluator = PlannerEvaluator(benchmark, **options)
    return evaluator.measure({"it": driver}, show_progress=False)["it"]


@pytest.mark.slow
def test_the_log_itself_is_measured_as_such() -> None:
    for record in measured(PlannerDriver(Oracle), benchmark_of()).records:
        assert float(record["ade"]) < 1e-4
        assert record["progress_score"] == 1
        assert record["failed"] == 0


@pytest.mark.slow
def test_batches_change_nothing() -> None:
    one, two = (measured(straight(), benchmark_of(batch_size=size)).records for size in (1, 2))
    assert len(one) == 2
    for ours, theirs in zip(one, two, strict=True):
        numbers = {name for name, value in ours.items() if isinstance(value, float)}
        assert {name: ours[name] for name in ours.keys() - numbers} == {
            name: theirs[name] for name in theirs.keys() - numbers
        }
        assert {name: ours[name] for name in numbers} == pytest.approx(
            {name: theirs[name] for name in numbers}, abs=1e-3, nan_ok=True
        )


@pytest.mark.slow
def test_a_failure_in_one_of_two_rollouts_halves_the_score() -> None:
    calls = []

    class Once(Failing):
        """Fails in the first rollout only."""

        def initialize(self, context: Any) -> None:
            super().initialize(context)
            calls.append(context.seed)
            self.step = 3 if len(calls) == 1 else 1000

    benchmark = benchmark_of(num_scenarios=1, num_rollouts=2, batch_size=1)
    (record,) = measured(PlannerDriver(lambda: Once(3, ValueError("x"))), benchmark).records
    (whole,) = measured(straight(), benchmark_of(num_scenarios=1)).records
    assert len(set(calls)) == 2
    assert record["failed"] == 0.5
    assert str(record["failure"]).startswith("step 3: ValueError: x")
    assert record["score"] == pytest.approx(float(whole["score"]) / 2)
    assert record["num_rollouts"] == 2


@pytest.mark.slow
def test_single_scenarios_are_driven_as_in_the_whole_run() -> None:
    benchmark = benchmark_of()
    policy = make_policy("random_token", vocabulary=arc_vocabulary())

    def driver() -> PolicyDriver:
        return PolicyDriver(policy, "random")

    everything = measured(driver(), benchmark).records
    wanted = str(everything[1]["scenario_id"])
    (alone,) = measured(driver(), benchmark, only=[wanted]).records
    assert alone == pytest.approx(everything[1], nan_ok=True)
    with pytest.raises(ValueError, match="no scenarios nowhere among the 2"):
        measured(driver(), benchmark, only=["nowhere"])


@pytest.mark.slow
@pytest.mark.parametrize("worst", [0, 1])
def test_films_are_those_of_the_worst(worst: int) -> None:
    scenario_id = generate_scenario(worst).scenario_id[0]

    class NearlyAlways(Oracle):
        """Drives as was logged, but not everywhere."""

        def initialize(self, context: Any) -> None:
            super().initialize(context)
            if context.scenario_id == scenario_id:
                raise ValueError("not here")

    evaluator = PlannerEvaluator(benchmark_of(batch_size=1), num_films=1)
    evaluator.measure({"it": PlannerDriver(NearlyAlways)}, show_progress=False)
    (film,) = evaluator.films.of("it").items()
    assert film[0] == scenario_id
    assert film[1].score == 0
    assert film[1].episode.final.scenario.scenario_id == (scenario_id,)


def test_films_mark_vehicles_off_the_road_and_not_pedestrians(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    marked = []

    def frames(*_: object, offroad: torch.Tensor, **__: object) -> list[np.ndarray]:
        marked.append(offroad)
        return [np.zeros((16, 16, 3), dtype=np.uint8)]

    monkeypatch.setattr("trainers.planning.films.rollout_frames", frames)
    scenario = straight_road()
    xy = scenario.log.xy.clone()
    xy[2, :, 1] = 50.0  # A vehicle; agent 1, a pedestrian, is off the road as it is.
    scenario = scenario.replace(log=scenario.log.replace(xy=xy))
    kept = Films(1)
    kept.offer("it", {"scenario_id": "a", "score": 0.0}, rollout(LogReplay(), scenario), 0)
    (film,) = kept.of("it").values()
    film.write(tmp_path / "film.mp4")
    (offroad,) = marked
    assert offroad.any(dim=-1).tolist() == [False, False, True]


def test_logs_without_a_future_are_refused() -> None:
    scenario = generate_scenario(0)
    cut = scenario.replace(log=scenario.log.slice(0, 11))
    benchmark = dataclasses.replace(benchmark_of(num_scenarios=1), scenarios=[cut])
    with pytest.raises(ValueError, match=r"planners want scenarios of 91 steps, .* has 11: route"):
        measured(straight(), benchmark)


def test_traffic_by_type() -> None:
    assert parse_traffic("log", named) == ()
    assert parse_traffic("vehicle=log,cyclist=log_replay", named) == ()
    (group,) = parse_traffic("idm", named)
    assert isinstance(group.policy, IDM)
    assert group.types == frozenset(AgentType)
    first, second = parse_traffic("vehicle=idm,pedestrian=constant_velocity,cyclist=idm", named)
    assert first.types == {AgentType.VEHICLE, AgentType.CYCLIST}
    assert second.types == {AgentType.PEDESTRIAN}
    (rest,) = parse_traffic("other=idm", named)
    assert rest.types == {AgentType.OTHER, AgentType.UNSET}
    (spaced,) = parse_traffic("vehicle = idm, pedestrian = log", named)
    assert spaced.types == {AgentType.VEHICLE}


def load(name: str) -> Policy[Any]:
    return evaluate.load_policy(name, RolloutConfig(), torch.device("cpu"))


def test_arguments_follow_the_policy_that_drives_the_traffic() -> None:
    (everyone,) = parse_traffic("idm,time_headway=1.5,min_gap=3.0", load)
    assert everyone.policy == IDM(time_headway=1.5, min_gap=3.0)
    assert everyone.types == frozenset(AgentType)
    (theirs,) = parse_traffic("policies.idm:IDM, time_headway=1.5", load)
    assert theirs.policy == IDM(time_headway=1.5)
    cars, bicycles = parse_traffic(
        "vehicle=idm,time_headway=1.5,other=idm,time_headway=1.5,pedestrian=log,cyclist=idm", load
    )
    assert cars.policy == IDM(time_headway=1.5)
    assert cars.types == {AgentType.VEHICLE, AgentType.OTHER, AgentType.UNSET}
    assert bicycles.policy == IDM()
    assert bicycles.types == {AgentType.CYCLIST}


def test_a_folder_may_have_an_equals_sign_in_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="runs/lr=1e-4/bc', which is no folder"):
        parse_traffic("runs/lr=1e-4/bc", load)
    assert isinstance(load("idm"), IDM)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("idm,headway=1", "idm cannot be made with headway=1: got an unexpected"),
        ("idm,time_headway=fast", "idm cannot be made with time_headway='fast': "),
        ("idm,1", "wanted arguments as ,key=value, got '1' in idm,1"),
        ("smart_nano,top_k=1", "smart_nano, which a trainer saved, takes no arguments"),
        ("nobody,speed=1", "got 'nobody', which is no folder"),
        ("model.zip,sure=True", "model.zip cannot be made with sure=True: got an unexpected"),
    ],
)
def test_wrong_arguments_of_policies_are_refused(name: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(name)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nobody", "no policy 'nobody'"),
        ("log,speed=1", "replays the log takes no arguments, got 'log,speed=1'"),
        ("vehicle=log_replay,speed=1", "takes no arguments, got 'log_replay,speed=1'"),
        ("idm,vehicle=log", "one policy for each type"),
        ("car=idm", "types all, vehicle, pedestrian, cyclist, other; got 'car=idm'"),
        ("vehicle=idm,log", "wanted traffic as POLICY or TYPE=POLICY,.*got 'vehicle=idm,log'"),
        ("vehicle=idm,vehicle=log", "one policy for each type"),
        ("all=idm,vehicle=log", "one policy for each type"),
        ("vehicle=log,all=idm", "one policy for each type"),
    ],
)
def test_traffic_that_is_none_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_traffic(text, named)


def test_planners_are_loaded_by_what_they_are(file: Path) -> None:
    config = PlannerEvaluationConfig(planner=("x",), tracker="bicycle", time_limit=0.5)
    planner = load_driver(f"{file}:Planner", config, named)
    assert isinstance(planner, PlannerDriver)
    assert isinstance(planner._tracker, KinematicBicycle)
    assert planner._time_limit == 0.5
    policy = load_driver("policies.idm:IDM,time_headway=1.0", config, named)
    assert isinstance(policy, PolicyDriver)
    assert policy.policy == IDM(time_headway=1.0)
    assert policy.name == "policies.idm:IDM,time_headway=1.0"


def test_a_model_in_a_zip_is_a_policy_and_a_command_that_ends_in_zip_is_none() -> None:
    config = PlannerEvaluationConfig(planner=("x",))
    asked = []

    def make(name: str) -> Policy[Any]:
        asked.append(name)
        return IDM()

    driver = load_driver("runs/model.zip,deterministic=False", config, make)
    assert isinstance(driver, PolicyDriver)
    assert driver.name == "runs/model.zip,deterministic=False"
    with pytest.raises(FileNotFoundError, match="no program /no/such for the planner"):
        load_driver("process:/no/such model.zip", config, make)
    assert asked == ["runs/model.zip,deterministic=False"]


def test_the_planners_of_the_project_are_registered() -> None:
    config = PlannerEvaluationConfig(planner=("log_replay", "constant_velocity", "idm", "pdm"))
    assert len(load_drivers(config, named)) == 4


def test_the_same_planner_twice_is_refused(file: Path) -> None:
    config = PlannerEvaluationConfig(planner=(f"{file}:broken",) * 3)
    with pytest.raises(ValueError, match="broken twice"):
        load_drivers(config, named)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"planner": ()}, "at least one planner"),
        ({"time_limit": 0.0}, "time_limit must be above 0 s, got 0.0"),
        ({"render": -1}, "render must be at least 0, got -1"),
    ],
)
def test_what_cannot_run_is_refused_at_once(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PlannerEvaluationConfig(**{"planner": ("x",), **change})


def test_the_command_that_films_repeats_what_was_asked() -> None:
    config = PlannerEvaluationConfig(
        planner=("a", "b"),
        traffic="vehicle=idm",
        data="some data",
        tracker="bicycle",
        rollouts=RolloutConfig(num_rollouts=4, batch_size=3),
        seed=5,
        output=Path("there"),
    )
    command = render_command(config, "a", "0ab")
    assert command == (
        "python -m trainers.evaluate --planner a --traffic vehicle=idm --data 'some data' "
        "--scenario 0ab --render 1 --output there/scenarios/0ab --tracker bicycle --seed 5 "
        "--num-rollouts 4 --batch-size 3"
    )
