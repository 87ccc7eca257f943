"""Lets a planner plan for another process. Needs numpy and the standard library, nothing else.

    python serve.py package.module:Planner
    python serve.py path/to/file.py:Planner

It runs under any Python from 3.6 on and any numpy from 1.15 on, and may be copied. Or call
`serve(planner)` in a script of your own. `catk_sim.planning.process` describes what is said between
the processes.

A planner has `name`, `requires_log`, `initialize(context)` and `plan(input)`, as in
`catk_sim.planning.planner`. What it is given has the same names, but is made of plain objects:
every tensor is an array, and nothing but the route has methods. It returns an array, or a
dictionary with `acceleration` and `curvature`. Whatever it prints goes to the standard error.
"""

import base64
import importlib
import importlib.util
import json
import math
import os
import sys
import traceback
from types import SimpleNamespace
from typing import Any

import numpy as np

PROTOCOL = 1


class Route(SimpleNamespace):
    """The route of a planner's context: `catk_sim.planning.route.Route`, of arrays."""

    @property
    def length(self) -> float:
        """Arc length at which the route ends (m)."""
        return float(self.valid.sum() - 1)

    def project(self, xy: Any) -> Any:
        """Tells how far along the route points are, and how far to its left (m)."""
        return project(self, np.asarray(xy), np, np.take_along_axis)

    def pose_at(self, arc: Any) -> Any:
        """Tells position (m) and heading (rad) at arc lengths (m); straight on past both ends."""
        return pose_at(self, np.asarray(arc), np, np.take_along_axis)


# Both kinds of route, of tensors and of arrays, compute by the next two functions. They are here
# because this file may be copied alone.


def project(route: Any, xy: Any, lib: Any, take: Any) -> Any:
    """Computes `project` of a route, in tensors or arrays.

    Args:
        route: The route.
        xy: Points (m).
        lib: torch or numpy.
        take: Its function that picks values by index: the two have no common name for it.
    """
    step = (route.xy[..., 1:, :] - route.xy[..., :-1, :])[..., None, :, :]
    offset = xy[..., None, :] - route.xy[..., None, :-1, :]
    span = lib.linalg.norm(step, axis=-1)
    along = (offset * step).sum(-1) / span**2
    aside = (step[..., 0] * offset[..., 1] - step[..., 1] * offset[..., 0]) / span
    distance = lib.hypot((along - lib.clip(along, 0, 1)) * span, aside)
    distance = lib.where(route.valid[..., None, 1:], distance, math.inf)
    nearest = distance.argmin(-1)[..., None]
    low = lib.where(nearest == 0, -math.inf, 0.0)
    high = lib.where(nearest == _last(route)[..., None], math.inf, 1.0)
    along, aside, span = (take(part, nearest, -1) for part in (along, aside, span))
    part = lib.clip(along, low, high)
    lateral = lib.copysign(lib.hypot((along - part) * span, aside), aside)
    return (nearest + part)[..., 0], lateral[..., 0]


def pose_at(route: Any, arc: Any, lib: Any, take: Any) -> Any:
    """Computes `pose_at` of a route, in tensors or arrays. See `project`."""
    index = lib.minimum(lib.floor(arc).clip(0), _last(route))
    part = arc - index
    start = lib.asarray(index, dtype=lib.int64)
    xy, next_xy = (take(route.xy, at[..., None], -2) for at in (start, start + 1))
    heading, next_heading = (take(route.heading, at, -1) for at in (start, start + 1))
    xy = xy + (next_xy - xy) * part[..., None]
    return xy, heading + (next_heading - heading) * part.clip(0, 1)


def _last(route: Any) -> Any:
    """Tells which point begins the last segment of a route."""
    return (route.valid.sum(-1) - 2).clip(0)[..., None]


def encode_array(array: Any) -> dict:
    """Tells an array in JSON: type, shape, and base64 of its numbers, little-endian."""
    array = np.asarray(array)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)
    data = base64.b64encode(array.tobytes()).decode("ascii")
    return {"dtype": array.dtype.str, "shape": list(array.shape), "base64": data}


def decode(value: Any) -> Any:
    """Makes objects and arrays of what JSON told."""
    if isinstance(value, list):
        return tuple(decode(one) for one in value)
    if not isinstance(value, dict):
        return value
    if "base64" in value:
        data = np.frombuffer(base64.b64decode(value["base64"]), dtype=np.dtype(value["dtype"]))
        return data.reshape(value["shape"]).copy()
    return SimpleNamespace(**{name: decode(one) for name, one in value.items()})


def answer(planner: Any, request: dict) -> dict:
    """Does what a request asks."""
    try:
        if request["call"] == "initialize":
            context = decode(request["context"])
            context.route = Route(**vars(context.route))
            planner.initialize(context)
            return {"done": True}
        plan = planner.plan(decode(request["input"]))
        if isinstance(plan, dict):
            return {"controls": {name: float(value) for name, value in plan.items()}}
        return {"plan": encode_array(np.asarray(plan, dtype=np.float64))}
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        return {"error": message, "details": traceback.format_exc()}


def serve(planner: Any) -> None:
    """Answers requests until there are no more."""
    # The planner may print: what it prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(message: dict) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    say({"protocol": PROTOCOL, "name": planner.name, "requires_log": bool(planner.requires_log)})
    for line in sys.stdin:
        say(answer(planner, json.loads(line)))


def load(spec: str, options: dict) -> Any:
    """Makes the planner that a class, at `module:Class` or `file.py:Class`, makes."""
    place, _, name = spec.rpartition(":")
    if place.endswith(".py"):
        described = importlib.util.spec_from_file_location("served_planner", place)
        if described is None or described.loader is None:
            raise ImportError(f"{place} cannot be imported")
        module = importlib.util.module_from_spec(described)
        sys.modules["served_planner"] = module
        described.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    return getattr(module, name)(**options)


if __name__ == "__main__":
    # Not the folder of this file, whose other modules are not meant.
    sys.path[0] = os.getcwd()
    serve(load(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
