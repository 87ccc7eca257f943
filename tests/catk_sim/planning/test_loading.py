"""Planners are found wherever they are, and what is none is refused in plain words."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catk_sim.planning.adapters import FunctionPlanner
from catk_sim.planning.drivers import PlannerDriver
from catk_sim.planning.loading import (
    load_planner,
    parse_planner,
    registered_planners,
)
from catk_sim.planning.planner import Planner
from catk_sim.planning.simulation import drive
from tests.scenes import straight_road

CODE = '''
"""A planner of somebody else."""

import dataclasses

import numpy as np

LIMIT = 3.0


@dataclasses.dataclass
class Slow:
    speed: float = 2.0
    label: str = "slow"
    requires_log = False

    @property
    def name(self):
        return self.label

    def initialize(self, context):
        self.context = context

    def plan(self, input):
        x, y = input.ego.xy[-1]
        ahead = self.speed * self.context.step_seconds * np.arange(1, 11)
        return np.stack([x + ahead, 0 * ahead + y, 0 * ahead], axis=-1)


class Brake:
    """A policy."""

    dynamics = None

    def init(self, state): ...
    def act(self, state, memory, generator): ...


class NoPlanner:
    name = "none"

    def plan(self, input): ...


def stand(input):
    return [[*input.ego.xy[-1], input.ego.heading[-1]]] * 5


def go(input, context, speed=1.0):
    x, y = input.ego.xy[-1]
    return [[x + speed * context.step_seconds, y, 0.0]]


def make(speed=5.0):
    return Slow(speed=speed)


def make_function():
    return stand


def make_nothing():
    return 3


ready = Slow(label="ready")


class Outer:
    class Inner(Slow):
        pass
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "their_planner.py"
    path.write_text(CODE)
    return path


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Path]:
    """A package as pip installs it, with an entry point."""
    package = tmp_path / "site" / "their_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "planning.py").write_text(CODE)
    about = tmp_path / "site" / "their_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[catk_sim.planners]\n"
        "their_slow = their_package.planning:Slow\n"
        "their_lost = their_package.nowhere:Slow\n"
    )
    site = str(tmp_path / "site")
    sys.path.insert(0, site)
    yield tmp_path / "site"
    sys.path.remove(site)
    for name in [name for name in sys.modules if name.startswith("their_package")]:
        del sys.modules[name]


def moved(planner: Any) -> float:
    """How far east the ego gets in a second (m)."""
    driven = drive(PlannerDriver(lambda: planner), [straight_road()], num_steps=10)
    assert driven.failures == ()
    xy = driven.rollout.simulated.xy[0, 0]
    return float(xy[20, 0] - xy[10, 0])


def test_a_class_in_a_file(file: Path) -> None:
    planner = load_planner(f"{file}:Slow")
    assert isinstance(planner, Planner)
    assert planner.name == "slow"
    assert moved(planner) == pytest.approx(2, abs=1e-4)


def test_arguments_are_given_to_the_class(file: Path) -> None:
    planner = load_planner(f"{file}:Slow", speed=7, label="mine")
    assert isinstance(planner, Planner)
    assert planner.name == "mine"
    assert moved(planner) == pytest.approx(7, abs=1e-4)


def test_a_class_in_a_module(installed: Path) -> None:
    assert moved(load_planner("their_package.planning:Slow", speed=3)) == pytest.approx(3, abs=1e-4)
    assert isinstance(load_planner("their_package.planning:Outer.Inner"), Planner)


def test_an_entry_point_of_an_installed_package(installed: Path) -> None:
    assert "their_slow" in registered_planners()
    assert moved(load_planner("their_slow")) == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "metres"),
    [
        ("stand", {}, 0),
        ("go", {}, 1),
        ("go", {"speed": 4}, 4),
        ("make", {}, 5),
        ("make", {"speed": 6}, 6),
        ("make_function", {}, 0),
        ("ready", {}, 2),
    ],
)
def test_functions_and_instances(
    file: Path, name: str, options: dict[str, Any], metres: float
) -> None:
    assert moved(load_planner(f"{file}:{name}", **options)) == pytest.approx(metres, abs=1e-4)


def test_a_function_gives_its_name(file: Path) -> None:
    planner = load_planner(f"{file}:go", speed=4)
    assert isinstance(planner, FunctionPlanner)
    assert planner.name == "go"
    assert planner.requires_log is False


def test_a_policy_is_taken_too(file: Path) -> None:
    assert type(load_planner(f"{file}:Brake")).__name__ == "Brake"


def test_a_file_is_run_once(file: Path) -> None:
    one, two = (type(load_planner(f"{file}:Slow")) for _ in range(2))
    assert one is two


def test_equal_names_of_files_are_told_apart(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "elsewhere" / file.name
    other.parent.mkdir()
    other.write_text(CODE.replace('"slow"', '"other"'))
    names = [load_planner(f"{path}:Slow").name for path in (file, other)]  # type: ignore[union-attr]
    assert names == ["slow", "other"]


def test_a_file_that_fails_may_be_mended(file: Path) -> None:
    file.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        load_planner(f"{file}:Slow")
    file.write_text(CODE + "# mended")
    assert load_planner(f"{file}:Slow")


@pytest.mark.parametrize(
    ("spec", "error", "complaint"),
    [
        ("nobody", ValueError, "no planner 'nobody'; there are .*their_slow.*process:COMMAND"),
        ("their_lost", ImportError, "their_package.nowhere:Slow, which cannot be loaded"),
        ("no.such.module:Slow", ImportError, "no module no.such.module: .*path/to/file.py:Class"),
        ("their_package.no:Slow", ImportError, "no module their_package.no: "),
        (
            "nowhere.py:Slow",
            FileNotFoundError,
            "^there is no file nowhere.py: wanted the planner or policy nowhere.py:Slow$",
        ),
        ("their_package.planning:Fast", ValueError, "no Fast in .*; there are Slow, Brake, .*make"),
        ("FILE:Fast", ValueError, "no Fast in .*; there are Slow, Brake, NoPlanner, stand, go"),
        ("FILE:NoPlanner", ValueError, "NoPlanner that lacks requires_log, initialize"),
        ("FILE:make_nothing", ValueError, "a int that lacks name, requires_log"),
        ("FILE:LIMIT", ValueError, "a float that lacks name"),
        ("FILE:", ValueError, "wanted package.module:Class or file.py:Class"),
        (":Slow", ValueError, "wanted package.module:Class or file.py:Class"),
    ],
)
def test_what_is_no_planner_is_refused(
    installed: Path, file: Path, spec: str, error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        load_planner(spec.replace("FILE", str(file)))


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("Slow", {"sped": 1}, "cannot be made with sped=1: got an unexpected .* 'sped'"),
        ("ready", {"speed": 1}, "takes no arguments, got speed"),
    ],
)
def test_wrong_arguments_are_refused(
    file: Path, name: str, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        load_planner(f"{file}:{name}", **options)


def test_an_error_inside_a_module_is_its_own(installed: Path) -> None:
    (installed / "their_package" / "broken.py").write_text("import nothing_like_this")
    with pytest.raises(ModuleNotFoundError, match="nothing_like_this"):
        load_planner("their_package.broken:Slow")


def test_a_function_of_three_arguments_is_no_planner() -> None:
    def odd(input: Any, context: Any, more: Any) -> np.ndarray:
        return np.zeros((1, 3))

    with pytest.raises(ValueError, match=re.escape("odd has 3 arguments to give")):
        FunctionPlanner(odd)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("idm", ("idm", {})),
        ("idm,time_headway=1.2", ("idm", {"time_headway": 1.2})),
        ("a.b:C,n=3,name=fast,on=True", ("a.b:C", {"n": 3, "name": "fast", "on": True})),
        ("a.py:C,path=/tmp/x=y", ("a.py:C", {"path": "/tmp/x=y"})),
        ("process:run --a=1,2", ("process:run --a=1,2", {})),
    ],
)
def test_arguments_on_the_command_line(text: str, expected: Any) -> None:
    assert parse_planner(text) == expected


@pytest.mark.parametrize("text", ["idm,1.2", "idm,=3", "idm,a b=3", "idm,"])
def test_what_is_no_argument_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="key=value"):
        parse_planner(text)
