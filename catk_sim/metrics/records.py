"""Tables of scenarios: a row for each."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from catk_sim.extras import needs_extra

Record = Mapping[str, str | float]
"""What was measured of a scenario, by name. `scenario_id` tells which it is; a measure that is NaN
or not there is not defined for it."""


def write_records(records: Sequence[Record], path: Path) -> None:
    """Writes a table with a row for each scenario: CSV, or Parquet, by the suffix of the path.

    What is not defined is left empty. Columns are in the order in which they first appear.

    Args:
        records: The rows.
        path: Ends in .csv or .parquet.

    Raises:
        ValueError: It ends in something else, or there is no record.
        ImportError: It ends in .parquet, and pyarrow is not installed.
    """
    if not records:
        raise ValueError("wanted at least one record, got none")
    columns = list(dict.fromkeys(name for record in records for name in record))
    rows = [[_defined(record.get(name)) for name in columns] for record in records]
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    elif path.suffix == ".parquet":
        _write_parquet(columns, rows, path)
    else:
        raise ValueError(f"wanted a path that ends in .csv or .parquet, got {path.name}")


def worst_scenarios(
    records: Sequence[Record], measure: str = "score", *, count: int = 10, highest: bool = False
) -> list[Record]:
    """Lists the scenarios with the least of a measure, the least first.

    Those that it is not defined for are left out. Of equals, those that come first.

    Args:
        records: What was measured.
        measure: Its name.
        count: How many to list, at most.
        highest: Whether those with the most are wanted instead.

    Raises:
        ValueError: No record has the measure, or it is no number.
    """
    if not any(measure in record for record in records):
        known = sorted({name for record in records for name in record})
        raise ValueError(f"measure: wanted one of {', '.join(known)}, got {measure!r}")
    defined = [record for record in records if _defined(record.get(measure)) is not None]
    return sorted(defined, key=lambda one: number(one, measure), reverse=highest)[:count]


def number(record: Record, measure: str) -> float:
    """Returns a measure of a scenario. NaN where it is not there.

    Raises:
        ValueError: It is no number.
    """
    value = record.get(measure, math.nan)
    if isinstance(value, str):
        raise ValueError(f"{measure}: wanted a number, got {value!r}")
    return value


def _defined(value: str | float | None) -> str | float | None:
    return None if isinstance(value, float) and math.isnan(value) else value


def _write_parquet(columns: list[str], rows: list[list[str | float | None]], path: Path) -> None:
    with needs_extra("parquet", "a Parquet table"):
        import pyarrow
        import pyarrow.parquet
    table = {name: [row[index] for row in rows] for index, name in enumerate(columns)}
    pyarrow.parquet.write_table(pyarrow.table(table), path)
