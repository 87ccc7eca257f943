"""Charts of a report, as SVG text."""

import io

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from catk_sim.report.records import Histogram
from catk_sim.visualization import colors

LOG = "log"
"""The name under which a histogram has what was logged."""

_INCHES = (3.4, 2.1)
_INK = colors.to_hex(colors.INK)
_PALE = "#c9c9cd"


def histogram_svg(histogram: Histogram) -> str:
    """Draws the shares of a histogram: what was logged as an area, policies as outlines.

    Raises:
        ValueError: A row of counts does not have one number for each bin.
    """
    edges = histogram.edges
    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.add_subplot()
    names = sorted(histogram.counts, key=lambda name: name != LOG)
    hues = iter(colors.POLICIES * (1 + len(names) // len(colors.POLICIES)))
    for name in names:
        counts = np.asarray(histogram.counts[name], dtype=np.float64)
        if counts.shape != (len(edges) - 1,):
            raise ValueError(
                f"{histogram.title}: wanted {len(edges) - 1} counts for {name}, got {counts.shape}"
            )
        share = counts / max(counts.sum(), 1)
        is_log = name == LOG
        axes.stairs(
            share,
            edges,
            fill=is_log,
            color=_PALE if is_log else colors.to_hex(next(hues)),
            linewidth=1.4,
            label=name,
        )
    axes.set_title(histogram.title, fontsize=9, color=_INK)
    axes.set_xlim(*_shown(histogram))
    axes.set_yticks([])
    axes.tick_params(labelsize=7, colors=_INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return _to_svg(figure)


def _shown(histogram: Histogram) -> tuple[float, float]:
    """Leaves out empty bins at both ends."""
    filled = np.flatnonzero(sum(np.asarray(counts) for counts in histogram.counts.values()))
    if not len(filled):
        return float(histogram.edges[0]), float(histogram.edges[-1])
    return float(histogram.edges[filled[0]]), float(histogram.edges[filled[-1] + 1])


def _to_svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # Letters as text, and names of parts that are the same each time.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "catk-sim"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
