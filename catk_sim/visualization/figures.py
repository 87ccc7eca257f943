"""Figures for reports and papers. The suffix of the path chooses the format: PNG, PDF or SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from catk_sim.constants import CURRENT_STEP
from catk_sim.datatypes import Rollout, Scenario, Trajectory
from catk_sim.geometry.boxes import box_corners
from catk_sim.visualization import colors
from catk_sim.visualization.annotations import scale_bar_length
from catk_sim.visualization.backdrop import Backdrop
from catk_sim.visualization.framing import bounding_square, require_one_world

_DPI = 200
_INK, _PALE = colors.to_hex(colors.INK), "#9a9a9e"
_PANEL_INCHES = 3.5
_MAP_PIXELS = 1400
_CURVE_INCHES = (3.2, 2.3)
_DASHES = (0, (4, 2))
_STYLES = ("-", "--", "-.", ":")
_NOISY = 100  # Points from which on a curve gets a running mean.


def plot_rollouts_over_log(
    scenario: Scenario,
    rollouts: Mapping[str, Rollout],
    path: str | Path,
    *,
    metres: float | int | None = None,
    captions: Mapping[str, str] | None = None,
) -> Path:
    """Draws where policies drive the agents they control, a panel for each policy, over the log.

    Args:
        scenario: What was simulated, without batch dimensions.
        rollouts: Episodes by the name of the policy: one, or several in one batch dimension.
        path: Where to write. Missing folders are made.
        metres: Sides of the panels on the ground (m). By default, what shows the log of the
            controlled agents from the current step on. Rollouts that leave it are cut off.
        captions: What to write below a policy's panel, such as its error.

    Returns:
        The path.

    Example:
        >>> import tempfile, torch
        >>> from catk_sim.datasets import open_scenarios
        >>> from catk_sim.rollout import rollout
        >>> from policies.registry import make_policy
        >>> scenario = next(iter(open_scenarios("synthetic"))).to(torch.float32)
        >>> driven = {"IDM": rollout(make_policy("idm"), scenario)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_rollouts_over_log(scenario, driven, f"{folder}/figure.svg").name
        'figure.svg'
    """
    require_one_world(scenario)
    if not rollouts:
        raise ValueError("there is no rollout to plot")
    scenario = scenario.to("cpu")
    episodes = {name: _read_episodes(each, scenario) for name, each in rollouts.items()}
    log = _lines(scenario.log, CURRENT_STEP)
    driven = log[np.any([each.controlled for each in episodes.values()], axis=0)]
    center, extent = bounding_square(driven[np.isfinite(driven).all(axis=-1)])
    ground = _Ground(scenario, center, metres or extent)
    figure = Figure(
        figsize=(len(episodes) * _PANEL_INCHES, _PANEL_INCHES + (0.6 if captions else 0.45)),
        layout="constrained",
    )
    panels = figure.subplots(1, len(episodes), squeeze=False)[0]
    handles = []
    for index, (axes, (name, each)) in enumerate(zip(panels, episodes.items(), strict=True)):
        ground.draw(axes)
        _draw_agents(axes, scenario, each.controlled)
        _draw_episodes(axes, each, _color(index))
        _draw_lines(axes, log[each.controlled], _INK, linewidths=0.8, linestyles=[_DASHES])
        axes.set_title(name, fontsize=10, fontweight="bold", color=_INK)
        axes.set_xlabel((captions or {}).get(name, ""), fontsize=8, color=_INK)
        handles.append(Line2D([], [], color=_color(index), linewidth=1.6, marker="o", markersize=3))
        handles[-1].set_label(name)
    handles.append(Line2D([], [], color=_INK, linewidth=0.9, linestyle=_DASHES, label="log"))
    _legend_below(figure, handles)
    return _save(figure, path)


def plot_learning_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    path: str | Path,
    *,
    metrics: Sequence[str] | None = None,
) -> Path:
    """Draws each metric over the steps of training, a panel for each metric.

    The stages of a run follow each other, each from a dotted line on. Values that are not finite
    are left out. A stage of more than a hundred points is drawn pale under its running mean.

    Args:
        runs: Records of runs by their names, such as `{"stage": "bc", "step": 10, "loss": 2.5}`.
            A record need not have every metric.
        path: Where to write. Missing folders are made.
        metrics: What to draw; by default all numbers, in the order in which they first appear.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> log = [{"stage": "bc", "step": step, "loss": 1 / step} for step in (1, 2, 3)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_learning_curves({"seed 0": log}, f"{folder}/curves.png").stat().st_size > 0
        True
    """
    found = _metric_names(runs)
    metrics = found if metrics is None else metrics
    if not metrics or not set(metrics) <= set(found):
        raise ValueError(f"the runs have the metrics {found}, wanted {list(metrics)}")
    sequences = [_in_sequence(records) for records in runs.values()]
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(
        figsize=(columns * _CURVE_INCHES[0], rows * _CURVE_INCHES[1] + 0.3), layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, metric in zip(panels, metrics, strict=False):
        _style_curves(axes, metric)
        for index, records in enumerate(sequences):
            _draw_curve(axes, records, metric, index)
        _draw_stages(axes, sequences[0])
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    if len(runs) > 1:
        _legend_below(figure, [_curve_key(index, name) for index, name in enumerate(runs)])
    return _save(figure, path)


@dataclass(frozen=True)
class _Episodes:
    """Where rollouts of one policy lead: NaN where an agent is absent."""

    lines: Float[np.ndarray, "rollouts agents steps 2"]
    controlled: Bool[np.ndarray, " agents"]


def _read_episodes(rollout: Rollout, scenario: Scenario) -> _Episodes:
    simulated = rollout.simulated.to("cpu")
    batch = tuple(simulated.valid.shape[:-2])
    if len(batch) > 1 or simulated.num_agents != scenario.log.num_agents:
        raise ValueError(
            f"wanted rollouts of {scenario.log.num_agents} agents in at most one batch dimension, "
            f"got the shape {tuple(simulated.valid.shape)}"
        )
    lines = _lines(simulated, CURRENT_STEP)
    controlled = rollout.final.controlled.cpu()
    if not batch:
        return _Episodes(lines[None], controlled.numpy())
    return _Episodes(lines, controlled.any(dim=0).numpy())


def _lines(motion: Trajectory, first_step: int) -> Float[np.ndarray, "*batch agents steps 2"]:
    xy = motion.xy[..., first_step:, :].double().numpy()
    return np.where(motion.valid[..., first_step:, None].numpy(), xy, np.nan)


class _Ground:
    """The map, paled, with a scale bar."""

    def __init__(
        self, scenario: Scenario, center: tuple[float, float], metres: float | int
    ) -> None:
        view = Backdrop(scenario.roadgraph, size=_MAP_PIXELS, metres=metres).view(center)
        self._pixels = (view.pixels // 2 + 127).astype(np.uint8)
        self._metres = metres
        x, y = view.camera.center
        self._extent = (x - metres / 2, x + metres / 2, y - metres / 2, y + metres / 2)

    def draw(self, axes: Axes) -> None:
        """Fills a panel."""
        left, right, bottom, top = self._extent
        axes.imshow(self._pixels, extent=self._extent, interpolation="antialiased", zorder=0)
        axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
        axes.spines[:].set(color=_INK, linewidth=0.6)
        length, margin = scale_bar_length(self._metres), 0.04 * self._metres
        bar = [right - margin - length, right - margin]
        axes.plot(
            bar, [bottom + margin] * 2, color=_INK, linewidth=2, solid_capstyle="butt", zorder=5
        )
        axes.annotate(
            f"{length:g} m",
            (sum(bar) / 2, bottom + margin),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=7,
            color=_INK,
            zorder=5,
        )


def _draw_agents(axes: Axes, scenario: Scenario, controlled: Bool[np.ndarray, " agents"]) -> None:
    """Draws all agents where they start: dark if controlled."""
    now, agents = scenario.log.at(CURRENT_STEP), scenario.agents
    boxes = box_corners(now.xy[:, 0], now.heading[:, 0], agents.size).numpy()
    present = (now.valid[:, 0] & agents.valid).numpy()
    for chosen, color in (
        (present & ~controlled, colors.WHITE),
        (present & controlled, colors.GRAY),
    ):
        axes.add_collection(
            PolyCollection(
                list(boxes[chosen]),
                facecolors=colors.to_hex(color),
                edgecolors=_INK,
                linewidths=0.4,
                zorder=1,
            )
        )


def _draw_episodes(axes: Axes, episodes: _Episodes, color: str) -> None:
    lines = episodes.lines[:, episodes.controlled]
    alpha = max(0.2, 0.9 / np.sqrt(len(lines)))
    flat = lines.reshape(-1, *lines.shape[2:])
    _draw_lines(axes, flat, color, linewidths=1.3, alpha=alpha)
    ends = flat[:, -1]
    axes.scatter(ends[:, 0], ends[:, 1], s=7, color=color, alpha=alpha, linewidths=0, zorder=3)


def _draw_lines(
    axes: Axes, lines: Float[np.ndarray, "lines steps 2"], color: str, **style: Any
) -> None:
    axes.add_collection(LineCollection(list(lines), colors=color, zorder=2, **style))


def _metric_names(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    names: dict[str, None] = {}
    for records in runs.values():
        for record in records:
            numbers = (name for name, value in record.items() if isinstance(value, int | float))
            names.update(dict.fromkeys(name for name in numbers if name != "step"))
    return list(names)


@dataclass(frozen=True)
class _Record:
    """A record, at its step since the run began."""

    stage: str
    step: int
    numbers: Mapping[str, Any]


def _in_sequence(records: Sequence[Mapping[str, Any]]) -> list[_Record]:
    """Counts steps through all stages of a run."""
    done, before, sequence = 0, "", []
    for record in records:
        stage = str(record.get("stage", ""))
        if sequence and stage != before:
            done = sequence[-1].step
        before = stage
        sequence.append(_Record(stage, done + int(record["step"]), record))
    return sequence


def _draw_curve(axes: Axes, records: list[_Record], metric: str, index: int) -> None:
    color, style = _color(index), _STYLES[index % len(_STYLES)]
    # A line from one stage to the next would tell of steps that nobody took.
    for _, stage in groupby(records, key=lambda record: record.stage):
        points = [(each.step, float(each.numbers.get(metric, np.nan))) for each in stage]
        steps, values = (
            np.array([point for point in points if np.isfinite(point[1])]).reshape(-1, 2).T
        )
        marker = "o" if len(values) <= 15 else ""
        if len(values) > _NOISY:
            axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.25)
            values = _running_mean(values)
        axes.plot(steps, values, style, color=color, linewidth=1.4, marker=marker, markersize=2.5)


def _draw_stages(axes: Axes, records: list[_Record]) -> None:
    """Writes each stage's name where it begins, if there is more than one."""
    starts = [
        (previous.step, each.stage)
        for previous, each in pairwise(records)
        if each.stage != previous.stage
    ]
    if not starts:
        return
    for step, stage in [(records[0].step, records[0].stage), *starts]:
        axes.axvline(step, color=_PALE, linewidth=0.8, linestyle=":", zorder=0)
        axes.annotate(
            stage,
            (step, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            fontsize=6.5,
            color=_INK,
        )


def _running_mean(values: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    """Averages each value with those around it, fewer at the ends."""
    half = len(values) // 50
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _style_curves(axes: Axes, metric: str) -> None:
    axes.set_title(metric.replace("_", " "), fontsize=9, loc="left", color=_INK)
    axes.set_xlabel("step", fontsize=8, color=_INK)
    axes.tick_params(labelsize=7, colors=_INK, width=0.6, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=_INK, linewidth=0.6)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.02, y=0.15)


def _curve_key(index: int, name: str) -> Line2D:
    style = _STYLES[index % len(_STYLES)]
    return Line2D([], [], color=_color(index), linestyle=style, linewidth=1.4, label=name)


def _color(index: int) -> str:
    return colors.to_hex(colors.POLICIES[index % len(colors.POLICIES)])


def _legend_below(figure: Figure, handles: list[Line2D]) -> None:
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(4, len(handles)),
        fontsize=8,
        frameon=False,
        labelcolor=_INK,
    )


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI, bbox_inches="tight", facecolor="white")
    return path
