import csv
import math
import sys
from pathlib import Path

import pytest

from catk_sim.metrics.records import Record, worst_scenarios, write_records

RECORDS: list[Record] = [
    {"scenario_id": "a", "score": 0.5, "offroad": math.nan},
    {"scenario_id": "b", "score": 0.25, "failure": "raised, twice"},
    {"scenario_id": "c", "score": 0.75, "offroad": 1.0},
    {"scenario_id": "d", "score": math.nan},
    {"scenario_id": "e", "score": 0.25},
]


def test_a_csv_file_has_a_row_for_each_scenario(tmp_path: Path) -> None:
    write_records(RECORDS, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["scenario_id", "score", "offroad", "failure"]
    assert [row["scenario_id"] for row in rows] == list("abcde")
    assert [row["score"] for row in rows] == ["0.5", "0.25", "0.75", "", "0.25"]
    assert [row["offroad"] for row in rows] == ["", "", "1.0", "", ""]
    assert rows[1]["failure"] == "raised, twice"


def test_a_parquet_file_says_the_same(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_records(RECORDS, tmp_path / "table.parquet")
    table = parquet.read_table(tmp_path / "table.parquet")
    assert table.column_names == ["scenario_id", "score", "offroad", "failure"]
    assert table["score"].to_pylist() == [0.5, 0.25, 0.75, None, 0.25]
    assert table["offroad"].to_pylist() == [None, None, 1.0, None, None]
    assert table["scenario_id"].to_pylist() == list("abcde")


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"Parquet table needs .*'catk-sim\[parquet\]'"):
        write_records(RECORDS, tmp_path / "table.parquet")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.csv or \.parquet, got table.txt"):
        write_records(RECORDS, tmp_path / "table.txt")
    with pytest.raises(ValueError, match="wanted at least one record"):
        write_records([], tmp_path / "table.csv")


def names(records: list[Record]) -> list[str]:
    return [str(record["scenario_id"]) for record in records]


def test_the_worst_come_first() -> None:
    assert names(worst_scenarios(RECORDS)) == ["b", "e", "a", "c"]
    assert names(worst_scenarios(RECORDS, count=2)) == ["b", "e"]
    assert names(worst_scenarios(RECORDS, highest=True)) == ["c", "a", "b", "e"]
    assert names(worst_scenarios(RECORDS, "offroad")) == ["c"]


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted one of failure, offroad, scenario_id, score, got"):
        worst_scenarios(RECORDS, "scores")


def test_words_are_no_measure() -> None:
    with pytest.raises(ValueError, match="failure: wanted a number, got 'raised, twice'"):
        worst_scenarios(RECORDS, "failure")
