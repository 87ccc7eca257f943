"""The page of a report: one file that works without a network."""

import html
import math
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

from catk_sim.datasets.whole_file import whole_file
from catk_sim.datatypes import AgentType, TrafficLightState
from catk_sim.report.encoding import as_json, encode_scene
from catk_sim.report.records import Figure, Measure, Report
from catk_sim.visualization import colors

_SCRIPTS = ("scene.js", "camera.js", "drawing.js", "table.js", "player.js")
_UNDEFINED = "\N{EN DASH}"
_ARROWS = {"up": " ↑", "down": " ↓", "": ""}


def write_report(report: Report, path: str | Path) -> Path:
    """Writes a report as one HTML file, all or nothing.

    Args:
        report: What it shows.
        path: Where to write. Missing folders are made.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        unfinished.write_text(render_report(report), encoding="utf-8")
    return path


def render_report(report: Report) -> str:
    """Makes the text of the file."""
    parts = {
        "title": html.escape(report.title),
        "style": _asset("report.css"),
        "facts": _facts(report.facts),
        "totals": _totals(report),
        "remarks": "".join(f"<p>{html.escape(remark)}</p>" for remark in report.remarks),
        "player": _asset("player.html") if report.scenes else "",
        "histograms": _histograms(report),
        "scenarios": _scenarios(report),
        "scenes": "".join(
            f'<script type="text/plain" class="scene">{encode_scene(scene)}</script>'
            for scene in report.scenes
        ),
        "data": as_json(
            {
                "scenes": [scene.scenario.scenario_id[0] for scene in report.scenes],
                "policies": list(report.totals),
                "figures": _playable_figures(report),
                "measures": {key: _titled(measure) for key, measure in report.measures.items()},
                "colors": _colors(),
            }
        ),
        "script": "\n".join(_asset(name) for name in _SCRIPTS),
    }
    # In one pass, so that nothing that is filled in is read as a place to fill.
    return re.sub(r"<!--(\w+)-->", lambda place: parts[place[1]], _asset("report.html"))


def _asset(name: str) -> str:
    return (files("catk_sim.report") / "assets" / name).read_text(encoding="utf-8")


def _facts(facts: Mapping[str, str]) -> str:
    return "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(fact)}</dd></div>"
        for name, fact in facts.items()
    )


def _totals(report: Report) -> str:
    best = {key: _best(report, key) for key in report.measures}
    rows = "".join(
        f'<tr><th scope="row">{html.escape(policy)}</th>'
        + "".join(
            _total_cell(figures.get(key), is_best=policy in best[key]) for key in report.measures
        )
        + "</tr>"
        for policy, figures in report.totals.items()
    )
    head = f"<tr><th>policy</th>{_headings(report.measures)}</tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _best(report: Report, key: str) -> set[str]:
    """Names the policies whose mean is best, if there are others and one is better."""
    better = report.measures[key].better
    means = {
        policy: figures[key].mean
        for policy, figures in report.totals.items()
        if key in figures and math.isfinite(figures[key].mean)
    }
    if not better or len(set(means.values())) < 2:
        return set()
    best = (max if better == "up" else min)(means.values())
    return {policy for policy, mean in means.items() if mean == best}


def _total_cell(figure: Figure | None, *, is_best: bool) -> str:
    if figure is None or not math.isfinite(figure.mean):
        return f"<td>{_UNDEFINED}</td>"
    mean = f"<b>{_number(figure.mean)}</b>" if is_best else _number(figure.mean)
    if figure.low is None or figure.high is None:
        return f"<td>{mean}</td>"
    return f"<td>{mean} <small>{_number(figure.low)} to {_number(figure.high)}</small></td>"


def _number(value: float) -> str:
    """Writes four digits, as many of them behind the point as have room."""
    digits = 3 if abs(value) < 100 else 1
    return f"{value:.{digits}f}"


def _titled(measure: Measure) -> str:
    return measure.title + (f" ({measure.unit})" if measure.unit else "")


def _headings(measures: Mapping[str, Measure]) -> str:
    return "".join(
        f"<th>{html.escape(_titled(measure))}{_ARROWS[measure.better]}</th>"
        for measure in measures.values()
    )


def _histograms(report: Report) -> str:
    if not report.histograms:
        return ""
    # Here, so that those who only load this package do without matplotlib's 30 MB.
    from catk_sim.report.charts import histogram_svg

    charts = "".join(f"<figure>{histogram_svg(each)}</figure>" for each in report.histograms)
    names = [name for name in report.histograms[0].counts if name != "log"]
    keys = '<span class="key log">log</span>' + "".join(
        f'<span class="key" style="--key:{colors.to_hex(color)}">{html.escape(name)}</span>'
        for name, color in zip(names, _policy_colors(len(names)), strict=True)
    )
    return (
        "<section><h2>Simulated against logged</h2>"
        f'<p class="keys">{keys}</p><div class="charts">{charts}</div></section>'
    )


def _policy_colors(count: int) -> Iterable[colors.Color]:
    return [colors.POLICIES[index % len(colors.POLICIES)] for index in range(count)]


def _scenarios(report: Report) -> str:
    """Makes the table of all scenarios; the script makes its headings sort it."""
    playable = {scene.scenario.scenario_id[0]: row for row, scene in enumerate(report.scenes)}
    rows = "".join(
        f'<tr data-scene="{playable.get(scenario_id, "")}" data-policy="{html.escape(policy)}">'
        f'<th scope="row">{_scene_link(scenario_id, playable)}</th><td>{html.escape(policy)}</td>'
        + "".join(_cell(figures.get(key)) for key in report.measures)
        + "</tr>"
        for scenario_id, policies in report.per_scenario.items()
        for policy, figures in policies.items()
    )
    return (
        '<table id="scenarios"><thead><tr><th>scenario</th><th>policy</th>'
        f"{_headings(report.measures)}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _scene_link(scenario_id: str, playable: Mapping[str, int]) -> str:
    name = html.escape(scenario_id)
    if scenario_id not in playable:
        return name
    return f'<button type="button" class="link" title="Play it">{name}</button>'


def _cell(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return f'<td data-value="">{_UNDEFINED}</td>'
    return f'<td data-value="{value!r}">{_number(value)}</td>'


def _playable_figures(report: Report) -> dict[str, dict[str, dict[str, str]]]:
    return {
        scene.scenario.scenario_id[0]: {
            name: {
                key: _number(drive.figures[key])
                for key in report.measures
                if math.isfinite(drive.figures.get(key, math.nan))
            }
            for name, drive in scene.drives.items()
        }
        for scene in report.scenes
    }


def _colors() -> dict[str, object]:
    named = ("GROUND", "ASPHALT", "BIKE_LANE", "DRIVEWAY", "LANE_CENTER", "ROAD_EDGE")
    named += ("WHITE_LINE", "YELLOW_LINE", "CROSSWALK", "SPEED_BUMP", "STOP_SIGN", "LOG_GHOST")
    named += ("INK", "SDC", "COLLISION", "OFFROAD")
    return {
        **{name.lower(): colors.to_hex(getattr(colors, name)) for name in named},
        "agents": {
            AgentType(kind).name.lower(): colors.to_hex(color)
            for kind, color in colors.AGENTS.items()
        },
        "lights": {int(state): colors.to_hex(color) for state, color in colors.LIGHTS.items()},
        "light_names": {int(state): state.name.lower() for state in TrafficLightState},
        "policies": [colors.to_hex(color) for color in colors.POLICIES],
    }
