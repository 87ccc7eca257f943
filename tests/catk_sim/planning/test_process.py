"""Planners in other processes drive as they would in this one."""

import ast
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.planning import serve
from catk_sim.planning.drivers import PlannerDriver
from catk_sim.planning.loading import load_planner
from catk_sim.planning.process import PlannerProcessError, ProcessPlanner, encode, serving_command
from catk_sim.planning.simulation import Driven, drive
from tests.catk_sim.planning.planners import towards_goal
from tests.scenes import straight_road

CODE = '''
import os
import sys
import time

import numpy as np

assert not any(name.startswith(("torch", "catk_sim")) for name in sys.modules)


class Towards:
    """Goes straight to the goal, evenly."""

    name = "towards"

    def __init__(self, requires_log=False):
        self.requires_log = requires_log

    def initialize(self, context):
        print("initialize", context.scenario_id)
        assert context.roadgraph.xyz.shape[1] == 3
        assert context.route.valid.dtype == bool
        assert (context.log is not None) == self.requires_log
        self.context = context

    def plan(self, input):
        os.write(1, b"this is no answer")
        assert input.agents.xy.shape == (len(input.agents.id), 11, 2)
        steps = max(1, self.context.horizon - input.step)
        part = np.arange(1, steps + 1)[:, None] / steps
        now = np.array([*input.ego.xy[-1], input.ego.heading[-1]])
        return now + part * (self.context.goal - now)


class Controlled(Towards):
    def plan(self, input):
        return {"acceleration": -1, "curvature": 0}


class Failing(Towards):
    def plan(self, input):
        if input.step == 2:
            raise KeyError("nothing here")
        return super().plan(input)


class Hanging(Towards):
    def plan(self, input):
        if input.step == 2:
            time.sleep(600)
        return super().plan(input)


class Dying(Towards):
    def plan(self, input):
        if input.step == 2:
            os._exit(7)
        return super().plan(input)
'''


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "their_planner.py"
    path.write_text(CODE)
    return str(path)


def driven_by(
    file: str, name: str, *, num_steps: int = 6, limit: float | None = None, **options: Any
) -> Driven:
    def make() -> Any:
        return load_planner(f"{file}:{name}", python=sys.executable, **options)

    members = [straight_road(), generate_scenario(1)]
    return drive(PlannerDriver(make, time_limit=limit), members, num_steps=num_steps)


def test_a_planner_drives_from_another_process_as_from_this_one(file: str) -> None:
    from catk_sim.planning.adapters import FunctionPlanner

    theirs = driven_by(file, "Towards", num_steps=20)
    assert theirs.failures == ()
    here = PlannerDriver(lambda: FunctionPlanner(towards_goal))
    ours = drive(here, [straight_road(), generate_scenario(1)], num_steps=20)
    assert torch.equal(theirs.rollout.simulated.xy, ours.rollout.simulated.xy)


def test_the_planner_of_the_notebook_drives_from_another_process_as_from_this_one(
    tmp_path: Path,
) -> None:
    notebook = Path(__file__).parents[3] / "notebooks" / "7_your_own_planner.ipynb"
    cells = ["".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"]]
    (code,) = [cell for cell in cells if cell.startswith("%%writefile")]
    path = tmp_path / "cruise.py"
    path.write_text(code.split("\n", 1)[1])

    def driven(**options: Any) -> Driven:
        def make() -> Any:
            return load_planner(f"{path}:Cruise", **options)

        return drive(PlannerDriver(make), [straight_road(), generate_scenario(1)], num_steps=20)

    here, there = driven(), driven(python=sys.executable)
    assert here.failures == there.failures == ()
    assert torch.equal(here.rollout.simulated.xy, there.rollout.simulated.xy)
    assert torch.equal(here.rollout.simulated.heading, there.rollout.simulated.heading)


def test_the_log_travels_too(file: str) -> None:
    assert driven_by(file, "Towards", requires_log=True).failures == ()


def test_controls_are_understood(file: str) -> None:
    driven = driven_by(file, "Controlled")
    speed = driven.rollout.final.current.velocity[0, 0, 0, 0]
    assert float(speed) == pytest.approx(10 - 0.6, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("Failing", "KeyError: 'nothing here'"), ("Dying", "gave exit code 7")],
)
def test_failures_are_told(file: str, name: str, reason: str) -> None:
    driven = driven_by(file, name)
    assert [failure.step for failure in driven.failures] == [2, 2]
    assert reason in driven.failures[0].reason
    if name == "Failing":
        assert "their_planner.py" in driven.failures[0].details


@pytest.mark.parametrize("name", ["Failing", "Dying", "Hanging"])
def test_a_process_that_failed_is_of_use_again(file: str, name: str) -> None:
    planner = load_planner(f"{file}:{name}", python=sys.executable)
    assert isinstance(planner, ProcessPlanner)
    driver = PlannerDriver(lambda: planner, time_limit=2.0)
    for _ in range(2):
        driven = drive(driver, [straight_road()], num_steps=6)
        assert driven.failures[0].step == 2
        assert len(driven.seconds) == 3
    process = planner._process
    planner.close()
    assert process is None or process.poll() is not None


def test_a_process_that_takes_too_long_is_killed(file: str) -> None:
    planner = load_planner(f"{file}:Hanging", python=sys.executable)
    assert isinstance(planner, ProcessPlanner)
    process = planner._process
    assert process is not None
    driver = PlannerDriver(lambda: planner, time_limit=2.0)
    (failure,) = drive(driver, [straight_road()], num_steps=6).failures
    assert failure.step == 2
    assert "and may take 2 s" in failure.reason
    assert process.poll() == -9


def test_a_process_ends_with_its_planner(file: str) -> None:
    planner = ProcessPlanner(serving_command(sys.executable, f"{file}:Towards", {}))
    process = planner._process
    assert process is not None
    assert process.poll() is None
    del planner
    assert process.poll() is not None


def test_a_command_may_be_anything_that_speaks_the_protocol(tmp_path: Path) -> None:
    script = tmp_path / "plain.py"
    script.write_text(
        "import json\n"
        'print(json.dumps({"protocol": 1, "name": "plain", "requires_log": False}), flush=True)\n'
        "for answer in ({'done': True}, {'controls': {'acceleration': 1.0, 'curvature': 0.0}}):\n"
        "    request = json.loads(input())\n"
        "    print(json.dumps(answer), flush=True)\n"
    )
    planner = load_planner(f"process:{shlex.join([sys.executable, str(script)])}")
    assert isinstance(planner, ProcessPlanner)
    assert planner.name == "plain"
    driven = drive(PlannerDriver(lambda: planner), [straight_road()], num_steps=1)
    assert driven.failures == ()
    assert float(driven.rollout.final.current.velocity[0, 0, 0, 0]) == pytest.approx(10.1)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("hello", "wanted a line of JSON, got 'hello"),
        ("[1]", "wanted a line of JSON"),
        ('{"protocol": 2, "name": "x", "requires_log": false}', "speaks protocol 1, got"),
        ('{"protocol": 1}', "speaks protocol 1, got"),
    ],
)
def test_who_does_not_introduce_itself_is_refused(said: str, complaint: str) -> None:
    command = [sys.executable, "-c", f"print({said!r}, flush=True); input()"]
    with pytest.raises(PlannerProcessError, match=complaint):
        ProcessPlanner(command)


def test_a_process_that_ends_at_once_is_refused() -> None:
    with pytest.raises(PlannerProcessError, match="gave exit code 5"):
        ProcessPlanner([sys.executable, "-c", "raise SystemExit(5)"])
    with pytest.raises(FileNotFoundError, match=r"no program /no/such for the planner /no/such -x"):
        ProcessPlanner(["/no/such", "-x"])
    with pytest.raises(ValueError, match="wanted a command"):
        load_planner("process:")
    with pytest.raises(ValueError, match="takes no arguments"):
        load_planner("process:true", speed=1)


@pytest.mark.parametrize("interpreter", ["/no/such/python", "no_such_python", 3.25])
def test_an_interpreter_that_is_not_there_is_named(file: str, interpreter: object) -> None:
    complaint = f"Python interpreter for {file}:Towards, got python={interpreter}, where there is"
    with pytest.raises(FileNotFoundError, match=re.escape(complaint)):
        load_planner(f"{file}:Towards", python=interpreter)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3) / 7,
        np.zeros((0, 11, 2)),
        np.array([[True, False]]),
        np.arange(3),
        np.arange(6.0).reshape(2, 3).T,
        np.float64(3.5),
        np.arange(4.0).astype(">f8"),
    ],
)
def test_arrays_arrive_as_they_were(array: np.ndarray) -> None:
    told = json.loads(json.dumps(serve.encode_array(array)))
    found = serve.decode(told)
    assert found.shape == np.shape(array)
    np.testing.assert_array_equal(found, array)
    assert found.flags.writeable


def test_records_arrive_with_their_names() -> None:
    told = serve.decode(json.loads(json.dumps(encode(straight_road()))))
    assert told.scenario_id == ("straight_road",)
    assert told.log.xy.shape == (3, 91, 2)
    assert told.agents.is_sdc.tolist() == [True, False, False]


def test_what_serves_runs_in_old_environments() -> None:
    tree = ast.parse(Path(serve.__file__).read_text(), feature_version=(3, 6))
    names = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    beyond = {str(name).split(".")[0] for name in names} - sys.stdlib_module_names
    assert beyond == {"numpy"}
