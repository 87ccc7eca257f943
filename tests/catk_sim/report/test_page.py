import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catk_sim.report import Figure, Histogram, Measure, write_report
from catk_sim.report.charts import histogram_svg
from catk_sim.report.page import render_report
from tests.catk_sim.report.scenes import decode, report_of, scenario_of

VOID = {"meta", "link", "input", "br", "img", "hr"}


class Page(HTMLParser):
    """Refuses elements that are not closed in order, and keeps what it meets."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID and not (self.open and "svg" in self.open):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if "svg" in self.open and tag != "svg":
            return
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text() -> str:
    return render_report(report_of([scenario_of(0), scenario_of(1)]))


def test_the_page_is_whole(text: str) -> None:
    page = Page(text)

    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    for wanted in ("player", "scenarios", "data", "views"):
        assert ids.count(wanted) == 1
    assert "<!--" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)


def test_nothing_is_fetched(text: str) -> None:
    for _, attributes in Page(text).elements:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert not re.search(r"@import|url\((?!#|[\"']?data:)|fetch\(|XMLHttpRequest", text)


def test_every_scene_can_be_read(text: str) -> None:
    scenes = re.findall(r'<script type="text/plain" class="scene">(.*?)</script>', text)

    assert [decode(scene)["id"] for scene in scenes] == [
        scenario_of(0).scenario_id[0],
        scenario_of(1).scenario_id[0],
    ]


def test_totals_have_intervals_and_the_best_is_bold(text: str) -> None:
    assert "<td><b>1.500</b> <small>1.250 to 1.750</small></td>" in text
    assert "<td>2.500</td><td>\N{EN DASH}</td>" in text


def test_the_greatest_is_best_where_more_is_better() -> None:
    report = report_of([scenario_of()])
    measures = {"ade": Measure(title="realism", better="up")}

    text = render_report(type(report)(**{**vars(report), "measures": measures}))

    assert "<b>2.500</b>" in text
    assert "<b>1.500</b>" not in text


def test_all_of_the_best_are_bold_unless_nobody_is_worse() -> None:
    report = report_of([])
    means = {"one": 1.5, "two": 1.5, "three": 4.0}
    totals = {name: {"ade": Figure(mean=mean)} for name, mean in means.items()}

    text = render_report(type(report)(**{**vars(report), "totals": totals}))
    assert text.count("<b>1.500</b>") == 2
    assert "<b>4.000</b>" not in text

    del totals["three"]
    text = render_report(type(report)(**{**vars(report), "totals": totals}))
    assert "<b>" not in text


def test_every_scenario_and_policy_has_a_row_that_sorts_by_value(text: str) -> None:
    for value in ("1.0", "2.0"):
        assert text.count(f'<td data-value="{value}">') == 2


def test_names_cannot_become_markup() -> None:
    report = report_of([scenario_of()], title="<b>&</b><!--script-->")

    text = render_report(report)

    assert "&lt;b&gt;&amp;&lt;/b&gt;&lt;!--script--&gt;" in text
    assert "<h1><b>" not in text


def test_a_report_without_scenes_has_no_player() -> None:
    text = render_report(report_of([]))

    assert 'id="player"' not in text
    Page(text)


def test_a_report_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    path = write_report(report_of([]), tmp_path / "deep" / "report.html")

    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_chart_of_the_wrong_length_is_refused() -> None:
    histogram = Histogram(title="speed", edges=np.arange(4.0), counts={"log": np.arange(4)})

    with pytest.raises(ValueError, match="speed: wanted 3 counts for log"):
        histogram_svg(histogram)


def test_a_chart_is_the_same_each_time() -> None:
    histogram = Histogram(title="speed", edges=np.arange(4.0), counts={"log": np.arange(3)})

    assert histogram_svg(histogram) == histogram_svg(histogram)


def test_measures_are_better_in_a_known_direction() -> None:
    with pytest.raises(ValueError, match="got 'less'"):
        Measure(title="ADE", better="less")
