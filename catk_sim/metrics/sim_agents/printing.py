"""What the commands that score say."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from catk_sim.metrics.sim_agents.realism import finite_or_none

SAME = {"metametric": "realism_meta_metric", "min_average_displacement_error": "min_ade"}
"""Scores of a metric's message that leaderboards list too, and what they call them."""


def print_json(record: Mapping[str, Any]) -> None:
    """Prints a record as one JSON object; what is not defined is null in it."""
    sys.stdout.write(json.dumps(finite_or_none(record), allow_nan=False) + "\n")


def print_table(scores: Mapping[str, float], title: str) -> None:
    """Prints scores, a line each, and none under two names."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, score in scores.items():
        if SAME.get(name) in scores:
            continue
        table.add_row(name, f"{score:.6f}")
    Console(emoji=False).print(table)
