"""Planners by name, from any package or file."""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from catk_sim.planning.adapters import FunctionPlanner, num_required
from catk_sim.planning.planner import Planner
from catk_sim.planning.process import ProcessPlanner, serving_command
from catk_sim.rollout import Policy

GROUP = "catk_sim.planners"
"""Entry points of this group, of any installed package, are planners."""

PROCESS = "process:"
"""What the name of a planner begins with that is a command to run."""

_PLANNER = ("name", "requires_log", "initialize", "plan")
_POLICY = ("dynamics", "init", "act")


def registered_planners() -> dict[str, EntryPoint]:
    """Lists the entry points of planners by their names."""
    return {point.name: point for point in entry_points(group=GROUP)}


def parse_planner(text: str) -> tuple[str, dict[str, Any]]:
    """Splits `NAME,key=value,key=value` into the name and arguments for `load_planner`.

    Values are read as Python literals, and as text where they are none.

    Raises:
        ValueError: An argument is not of the form `key=value`.
    """
    if text.startswith(PROCESS):  # A command may hold commas.
        return text, {}
    spec, *pairs = text.split(",")
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip().isidentifier():
            raise ValueError(f"wanted arguments as ,key=value, got {pair!r} in {text}")
        options[key.strip()] = _literal(value)
    return spec, options


def load_planner(spec: str, **options: Any) -> Planner | Policy[Any]:
    """Makes a planner, or a policy that is to drive the ego: the batched form of a planner.

    Args:
        spec: One of

            - `package.module:Thing`,
            - `path/to/file.py:Thing`,
            - the name of an entry point of the group `catk_sim.planners`,
            - `process:COMMAND`: see `catk_sim.planning.process`.

            The thing is a class of planners or policies, one of these itself, a function that makes
            one (no argument without default is left), or a function that plans: `plan(input)` or
            `plan(input, context)`.
        **options: Arguments of the class or function. `python=INTERPRETER` runs a planner given as
            `module:Thing` or `file.py:Thing` in a process of that interpreter.

    Raises:
        ValueError: There is no such planner, or it is none.
        ImportError: Its module cannot be imported.
        FileNotFoundError: There is no such file, program or interpreter.

    Example:
        >>> load_planner("idm").name
        'idm'
        >>> load_planner("policies.planners.pdm:PDMPlanner").requires_log
        False
    """
    if spec.startswith(PROCESS):
        _refuse_options(spec, options)
        return ProcessPlanner(shlex.split(spec.removeprefix(PROCESS)))
    if "python" in options:
        interpreter = str(options.pop("python"))
        return ProcessPlanner(serving_command(interpreter, spec, options))
    thing = _find(spec)
    made = _make(thing, spec, options)
    if _has(made, _PLANNER) or _has(made, _POLICY):
        return made
    lacks = [name for name in _PLANNER if not hasattr(made, name)]
    raise ValueError(
        f"wanted a planner with {', '.join(_PLANNER)}, or a policy with {', '.join(_POLICY)}; "
        f"{spec} is a {type(made).__name__} that lacks {', '.join(lacks)}"
    )


def _make(thing: Any, spec: str, options: dict[str, Any]) -> Any:
    if inspect.isclass(thing):
        return call_with(options, thing, spec)
    if inspect.isroutine(thing):
        function = partial(thing, **options)
        if _arguments_left(function, spec) == 0:
            return _make(call_with(options, thing, spec), spec, {})
        return FunctionPlanner(function, name=thing.__name__)
    _refuse_options(spec, options)
    return thing


def call_with(options: Mapping[str, Any], thing: Callable[..., Any], spec: str) -> Any:
    """Calls what makes a planner or policy.

    Args:
        options: The arguments.
        thing: A class or function.
        spec: What the user calls it.

    Raises:
        ValueError: It does not take these arguments, or not of these types.
    """
    given = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "no arguments"
    try:
        inspect.signature(thing).bind(**options)
    except (TypeError, ValueError) as error:  # The latter if it cannot tell its arguments.
        raise ValueError(f"{spec} cannot be made with {given}: {error}") from error
    try:
        return thing(**options)
    except TypeError as error:
        if not options:  # Then it is no argument's fault.
            raise
        raise ValueError(f"{spec} cannot be made with {given}: {error}") from error


def _arguments_left(function: Callable[..., Any], spec: str) -> int:
    try:
        return num_required(function)
    except ValueError as error:
        raise ValueError(f"{spec} is no function whose arguments can be told") from error


def _find(spec: str) -> Any:
    place, colon, attribute = spec.rpartition(":")
    if not colon:
        return _registered(spec)
    if not place or not attribute:
        raise ValueError(f"wanted package.module:Class or file.py:Class, got {spec!r}")
    found: Any = _file_module(place, spec) if place.endswith(".py") else _module(place, spec)
    for name in attribute.split("."):
        if not hasattr(found, name):
            there = [one for one, value in vars(found).items() if _is_offered(one, value, place)]
            raise ValueError(
                f"there is no {attribute} in {place}; there are {', '.join(there) or 'no classes'}"
            )
        found = getattr(found, name)
    return found


def _is_offered(name: str, value: Any, place: str) -> bool:
    own = getattr(value, "__module__", None) in (place, _file_module_name(Path(place)))
    return own and callable(value) and not name.startswith("_")


def _registered(name: str) -> Any:
    known = registered_planners()
    if name not in known:
        raise ValueError(
            f"there is no planner {name!r}; there are {', '.join(sorted(known)) or 'none'}, and "
            "whatever is given as package.module:Class, file.py:Class or process:COMMAND"
        )
    try:
        return known[name].load()
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"the planner {name!r} is {known[name].value}, which cannot be loaded: {error}"
        ) from error


def _module(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ImportError(
                f"there is no module {name}: wanted the planner or policy {spec}; for a file, "
                "write path/to/file.py:Class"
            ) from error
        raise


def _file_module(place: str, spec: str) -> ModuleType:
    path = Path(place)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: wanted the planner or policy {spec}")
    name = _file_module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    described = importlib.util.spec_from_file_location(name, path)
    if described is None or described.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(described)
    # Dataclasses and pickle look a class's module up.
    sys.modules[name] = module
    try:
        described.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _file_module_name(path: Path) -> str:
    digest = hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:8]
    return f"{path.stem}_{digest}"


def _has(thing: Any, names: tuple[str, ...]) -> bool:
    return all(hasattr(thing, name) for name in names)


def _refuse_options(spec: str, options: dict[str, Any]) -> None:
    if options:
        raise ValueError(f"{spec} takes no arguments, got {', '.join(options)}")


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()
