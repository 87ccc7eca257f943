"""A planner in another process: another environment, another Python, another language.

The process is started once for each scenario that is driven at a time. It reads requests from its
standard input and writes answers to its standard output, a line of JSON each. Its standard error
stays the user's. At first it says, unasked:

    {"protocol": 1, "name": "mine", "requires_log": false}

Then every request has one answer:

    {"call": "initialize", "context": CONTEXT}   {"done": true}
    {"call": "plan", "input": INPUT}             {"plan": ARRAY} or
                                                 {"controls": {"acceleration": A, "curvature": C}}

or, to either, `{"error": "one line", "details": "a traceback, say"}`. CONTEXT and INPUT are
`PlannerContext` and `PlannerInput` as objects with the same names; tensors and arrays are

    ARRAY = {"dtype": "<f8", "shape": [80, 3], "base64": "..."}

in NumPy's names of types: little-endian numbers in row-major order. For Python, `serve.py` beside
this file does all that: see there. A process that fails to answer in time is killed, and started
anew for the next scenario. It ends when its input does.
"""

import json
import shlex
import shutil
import subprocess
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from catk_sim.command import UserError
from catk_sim.planning import serve
from catk_sim.planning.planner import Controls, Plan, PlannerContext, PlannerInput


class PlannerProcessError(UserError):
    """A planner's process failed, or said what was not asked."""


class ProcessPlanner:
    """Plans by asking a process.

    Args:
        command: What to run, without a shell.

    Raises:
        FileNotFoundError: There is no such program.
        PlannerProcessError: It does not introduce itself as a planner.
    """

    def __init__(self, command: Sequence[str]) -> None:
        if not command:
            raise ValueError("wanted a command to run, got none")
        if shutil.which(command[0]) is None:
            raise FileNotFoundError(
                f"there is no program {command[0]} for the planner {shlex.join(command)}"
            )
        self._command = list(command)
        self._process: subprocess.Popen[str] | None = None
        hello = self._start()
        self.name: str = hello["name"]
        self.requires_log: bool = hello["requires_log"]

    def initialize(self, context: PlannerContext) -> None:
        """Tells the process of a scenario. Starts it anew if it has ended."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        self._ask({"call": "initialize", "context": encode(context)})

    def plan(self, input: PlannerInput) -> Plan:
        """Asks the process for a plan."""
        answer = self._ask({"call": "plan", "input": encode(input)})
        if "controls" in answer:
            return Controls(**answer["controls"])
        if "plan" not in answer:
            raise PlannerProcessError(f"wanted a plan or controls, got {_short(answer)}")
        return np.asarray(serve.decode(answer["plan"]))

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _start(self) -> dict[str, Any]:
        self.close()
        process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._process = process
        weakref.finalize(self, _end, process)
        hello = self._hear()
        if hello.get("protocol") != serve.PROTOCOL or not {"name", "requires_log"} <= hello.keys():
            self.close()
            raise PlannerProcessError(
                f"wanted a planner that speaks protocol {serve.PROTOCOL}, got {_short(hello)}"
            )
        return hello

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None:
            raise PlannerProcessError("the planner's process was ended")
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except BrokenPipeError as error:
            raise PlannerProcessError(f"the planner's process ended: {self._code()}") from error
        except BaseException:
            self.close()
            raise
        answer = self._hear()
        if "error" in answer:
            error = PlannerProcessError(answer["error"])
            error.add_note(str(answer.get("details", "")))
            raise error
        return answer

    def _hear(self) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
        except BaseException:
            # Interrupted, by a time limit or by the user: what it says next answers no question.
            self.close()
            raise
        if not line:
            raise PlannerProcessError(f"the planner's process ended: {self._code()}")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self.close()
            raise PlannerProcessError(f"wanted a line of JSON, got {line[:200]!r}")
        return answer

    def _code(self) -> str:
        assert self._process is not None
        return f"{self._command[0]} gave exit code {self._process.wait()}"


def serving_command(interpreter: str, spec: str, options: dict[str, Any]) -> list[str]:
    """Makes the command that serves a planner of another Python environment.

    Raises:
        FileNotFoundError: There is no such interpreter.
    """
    if shutil.which(interpreter) is None:
        raise FileNotFoundError(
            f"wanted a Python interpreter for {spec}, got python={interpreter}, where there is none"
        )
    return [interpreter, str(Path(serve.__file__).resolve()), spec, json.dumps(options)]


def encode(value: Any) -> Any:
    """Tells records, tensors and arrays in JSON."""
    if isinstance(value, Tensor):
        return serve.encode_array(value.cpu().numpy())
    if isinstance(value, np.ndarray):
        return serve.encode_array(value)
    if is_dataclass(value):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [encode(one) for one in value]
    return value


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            # What was written last may never have been read.
            with suppress(BrokenPipeError):
                pipe.close()


def _short(answer: dict[str, Any]) -> str:
    return json.dumps(answer)[:200]
