"""The page in a real browser, where there is one."""

import base64
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from catk_sim.report import write_report
from tests.catk_sim.report.scenes import report_of, scenario_of

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

# What a reader would do, and what they would see.
PROBE = """
<script>
addEventListener("load", async () => {
  const find = (id) => document.getElementById(id);
  const frame = () => new Promise((drawn) => requestAnimationFrame(drawn));
  const wait = async () => {
    await new Promise((done) => setTimeout(done, 200));
    await frame();
    await frame();
  };
  const change = async (id, value) => {
    find(id).value = value;
    find(id).dispatchEvent(new Event("change"));
    await wait();
  };
  const count = (selector) => document.querySelectorAll(selector).length;
  await wait();
  const seen = { views: count(".view canvas"), problem: find("problem").hidden };
  seen.wide = document.documentElement.scrollWidth <= innerWidth;
  await change("scene", "1");
  const shown = [...document.querySelectorAll("#scenarios tr.shown")];
  seen.rows = shown.map((row) => row.dataset.scene).join();
  const canvas = document.querySelector(".view canvas");
  canvas.setPointerCapture = () => {};
  find("follow").click();
  await wait();
  const box = canvas.getBoundingClientRect();
  const place = { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 };
  for (const kind of ["pointerdown", "pointerup"])
    canvas.dispatchEvent(new PointerEvent(kind, { ...place, pointerId: 1, bubbles: true }));
  await wait();
  seen.cards = count("#agent .card");
  seen.bars = count("#agent .bars i");
  seen.title = document.querySelector("#agent h3")?.textContent;
  find("forward").click();
  find("forward").click();
  await wait();
  seen.time = find("time").textContent;
  const picture = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  seen.painted = new Set(picture.data).size > 20;
  await change("right", "");
  seen.left_alone = count(".view canvas");
  const rows = () => [...document.querySelectorAll("#scenarios tbody tr")];
  const figures = () => rows().map((row) => row.cells[2].dataset.value).join();
  const heading = document.querySelectorAll("#scenarios thead button")[2];
  heading.click();
  seen.down = figures();
  heading.click();
  seen.up = figures();
  console.log("SEEN " + btoa(unescape(encodeURIComponent(JSON.stringify(seen)))));
});
</script>
"""

SEEN = {
    "views": 2,
    "problem": True,
    "wide": True,
    "rows": "1,1",
    "cards": 2,
    "bars": 6,
    "time": "0.2 s",
    "painted": True,
    "left_alone": 1,
    "down": "2.0,2.0,1.0,1.0",
    "up": "1.0,1.0,2.0,2.0",
}


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 500])
def test_a_reader_can_play_compare_click_and_sort(browser: str, tmp_path: Path, width: int) -> None:
    page = write_report(report_of([scenario_of(0), scenario_of(1)]), tmp_path / "report.html")
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"))

    log = tmp_path / "log"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [*command, "--enable-logging=stderr", page.as_uri()], stderr=stderr
        ) as running,
    ):
        # Time in the page runs as it does for a reader: it draws 60 times a second.
        told = wait_for(r"SEEN ([\w+/=]+)", log, seconds=60)
        running.terminate()

    assert len(re.findall("CONSOLE", log.read_text())) == 1, log.read_text()
    seen = json.loads(base64.b64decode(told))
    assert seen.pop("title").startswith("sdc, vehicle")
    assert seen == SEEN


def wait_for(pattern: str, log: Path, *, seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = re.search(pattern, log.read_text())
        if found is not None:
            return found[1]
        time.sleep(0.1)
    pytest.fail(f"the page did not get to its end within {seconds} s:\n{log.read_text()}")
