"""Agents, where they come from, and what befalls them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from catk_sim.datatypes import AgentType
from catk_sim.visualization import colors
from catk_sim.visualization.canvas import Canvas
from catk_sim.visualization.map_layer import regular_polygon

_BOX = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])

# Where an agent is heading, in halves of its length and width. The shape tells the type.
_MARKS = {
    AgentType.UNSET: np.array([[1.0, 0.6], [1.0, -0.6], [0.5, -0.6], [0.5, 0.6]]),
    AgentType.VEHICLE: np.array([[0.85, 0.0], [0.25, 0.65], [0.25, 0.0], [0.25, -0.65]]),
    AgentType.PEDESTRIAN: np.array([[1.0, 0.0], [0.0, 0.6], [-0.6, 0.0], [0.0, -0.6]]),
    AgentType.CYCLIST: np.array([[0.9, 0.0], [-0.8, 0.7], [-0.8, 0.0], [-0.8, -0.7]]),
    AgentType.OTHER: np.array([[1.0, 0.6], [1.0, -0.6], [0.5, -0.6], [0.5, 0.6]]),
}

_TRAIL_PARTS = 3
_SMALLEST_SIDE = 6.0  # Pixels of a picture of 800: a pedestrian stays visible in a wide view.
_SHORTEST_MARKED = 9.0  # Pixels. On a shorter agent the mark would hide the colour.
_SMALLEST_CROSSED = 12.0  # Pixels of a ring's radius. In a smaller one a cross would be a blot.


@dataclass(frozen=True, eq=False, kw_only=True)
class VisibleAgents:
    """The agents of one picture, as arrays without padding.

    Attributes:
        xy: Centres of the boxes (m).
        heading: Directions (rad).
        size: Lengths and widths (m).
        type: `AgentType` of each agent.
        is_sdc: Whether the agent is the sdc.
        controlled: Whether the agent is simulated. The others replay the log.
        collided: Whether to mark a collision.
        offroad: Whether to mark the agent as off the road.
    """

    xy: Float[np.ndarray, "agents 2"]
    heading: Float[np.ndarray, " agents"]
    size: Float[np.ndarray, "agents 2"]
    type: Int[np.ndarray, " agents"]
    is_sdc: Bool[np.ndarray, " agents"]
    controlled: Bool[np.ndarray, " agents"]
    collided: Bool[np.ndarray, " agents"]
    offroad: Bool[np.ndarray, " agents"]


def agent_colors(agents: VisibleAgents) -> list[colors.Color]:
    """The colour of each agent: the sdc's own, or its type's."""
    return [
        colors.SDC if is_sdc else colors.AGENTS[AgentType(kind)]
        for kind, is_sdc in zip(agents.type.tolist(), agents.is_sdc.tolist(), strict=True)
    ]


def draw_agents(canvas: Canvas, agents: VisibleAgents) -> None:
    """Draws boxes with heading marks: full if simulated, pale if they replay the log."""
    if len(agents.xy) == 0:
        return
    own = agent_colors(agents)
    acts = agents.controlled.tolist()
    half = _half_sizes(canvas, agents)
    boxes = _place(agents, half[:, None] * _BOX)
    # Below all agents, so that one sees them and where they are heading where many are marked.
    _draw_frames(canvas, agents, half)
    _draw_rings(canvas, agents, np.linalg.norm(half, axis=1))
    pale = [colors.tint(color, colors.WHITE, 0.65) for color in own]
    canvas.fill_convex(boxes, _choose(acts, own, pale))
    for color in sorted(set(own)):
        same = np.array([one == color for one in own])
        dark = colors.tint(color, colors.INK, 0.6)
        canvas.stroke(boxes[same & ~agents.is_sdc], dark, canvas.width(1.0), closed=True)
    canvas.stroke(boxes[agents.is_sdc], colors.INK, canvas.width(2.4), closed=True)
    marks = _place(agents, half[:, None] * np.stack([_MARKS[AgentType(k)] for k in agents.type]))
    marked = 2 * half.max(axis=1) * canvas.camera.pixels_per_metre > _SHORTEST_MARKED
    mark_colors = _choose(acts, [colors.WHITE] * len(own), own)
    canvas.fill_convex(marks[marked], [mark_colors[index] for index in np.flatnonzero(marked)])


def draw_ghosts(canvas: Canvas, agents: VisibleAgents) -> None:
    """Draws hollow boxes with a heading line: where the log has agents that are simulated."""
    if len(agents.xy) == 0:
        return
    half = _half_sizes(canvas, agents)
    nose = np.array([[0.0, 0.0], [1.0, 0.0]])
    canvas.stroke(
        _place(agents, half[:, None] * _BOX), colors.LOG_GHOST, canvas.width(1.0), closed=True
    )
    canvas.stroke(_place(agents, half[:, None] * nose), colors.LOG_GHOST, canvas.width(1.0))


def draw_trails(
    canvas: Canvas,
    xy: Float[np.ndarray, "agents steps 2"],
    valid: Bool[np.ndarray, "agents steps"],
    own: list[colors.Color],
) -> None:
    """Draws where agents have been, paler the longer ago; gaps stay gaps."""
    joined = valid[:, 1:] & valid[:, :-1]
    moved = np.abs(np.diff(xy, axis=1)).max(axis=-1) > 1e-3
    segments = np.stack([xy[:, :-1], xy[:, 1:]], axis=2)
    drawn = joined & moved
    num_steps = drawn.shape[1]
    for part in range(_TRAIL_PARTS):
        ages = slice(part * num_steps // _TRAIL_PARTS, (part + 1) * num_steps // _TRAIL_PARTS)
        fade = 0.75 - 0.5 * part / (_TRAIL_PARTS - 1)
        for color in sorted(set(own)):
            chosen = np.array([one == color for one in own])
            canvas.stroke(
                segments[chosen, ages][drawn[chosen, ages]],
                colors.tint(color, colors.GROUND, fade),
                canvas.width(2.0),
            )


def draw_modes(
    canvas: Canvas,
    lines: Float[np.ndarray, "modes 2 2"],
    probability: Float[np.ndarray, " modes"],
) -> None:
    """Draws lines from agents to where they may be next, the likelier the darker and thicker."""
    # The likeliest last, on top of the others.
    for index in np.argsort(probability, kind="stable"):
        share = float(np.clip(probability[index], 0, 1))
        color = colors.tint(colors.INK, colors.ASPHALT, 0.75 * (1 - share))
        canvas.stroke(lines[index : index + 1], color, canvas.width(1.0 + 3.0 * share))
        end = regular_polygon(lines[index, 1], canvas.to_metres(1.5 + 3.0 * share), 8)
        canvas.fill([end], color)


def _draw_frames(
    canvas: Canvas, agents: VisibleAgents, half: Float[np.ndarray, "agents 2"]
) -> None:
    """Puts a frame around agents that are off the road."""
    width = max(2, canvas.width(4.0)) / canvas.camera.pixels_per_metre
    rim = canvas.width(1.0) / canvas.camera.pixels_per_metre
    for reach, color in ((width + rim, colors.INK), (width, colors.OFFROAD)):
        frames = _place(agents, (half + reach)[:, None] * _BOX)[agents.offroad]
        canvas.fill_convex(frames, [color] * len(frames))


def _draw_rings(
    canvas: Canvas, agents: VisibleAgents, radius: Float[np.ndarray, " agents"]
) -> None:
    """Puts a crossed ring around agents that collided."""
    reach = (radius + canvas.to_metres(5.0))[:, None, None]
    width = max(2, canvas.width(3.2))
    angle = 2 * np.pi * np.arange(32) / 32
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    hit = agents.collided
    lines = agents.xy[hit, None] + reach[hit] * ring
    canvas.stroke(lines, colors.INK, width + canvas.width(2.0), closed=True)
    canvas.stroke(lines, colors.COLLISION, width, closed=True)
    hit = hit & (reach[:, 0, 0] * canvas.camera.pixels_per_metre >= _SMALLEST_CROSSED)
    for bar in (ring[[4, 20]], ring[[12, 28]]):
        canvas.stroke(agents.xy[hit, None] + reach[hit] * bar, colors.COLLISION, width)


def _half_sizes(canvas: Canvas, agents: VisibleAgents) -> Float[np.ndarray, "agents 2"]:
    smallest = max(_SMALLEST_SIDE * canvas.unit, 4.0) / canvas.camera.pixels_per_metre
    return np.maximum(agents.size, smallest) / 2


def _choose(
    condition: list[bool], where: list[colors.Color], otherwise: list[colors.Color]
) -> list[colors.Color]:
    return [
        yes if holds else no for holds, yes, no in zip(condition, where, otherwise, strict=True)
    ]


def _place(
    agents: VisibleAgents, local: Float[np.ndarray, "agents points 2"]
) -> Float[np.ndarray, "agents points 2"]:
    """Moves shapes from the agents' own frames to the scenario's."""
    cos, sin = np.cos(agents.heading)[:, None], np.sin(agents.heading)[:, None]
    x = cos * local[..., 0] - sin * local[..., 1]
    y = sin * local[..., 0] + cos * local[..., 1]
    return agents.xy[:, None] + np.stack([x, y], axis=-1)
