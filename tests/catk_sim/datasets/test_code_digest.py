import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from catk_sim.datasets import womd
from catk_sim.datasets.code_digest import code_digest

FILES = {
    "__init__.py": "",
    "reader.py": "import json\nfrom project import first\nfrom project.inner import CONSTANT\n",
    "first.py": "def lazily():\n    import project.third\n",
    "third.py": "import project.reader\n",
    "inner/__init__.py": "from project.inner.depth import CONSTANT\n",
    "inner/depth.py": "CONSTANT = 1\n",
    "stranger.py": "import project.reader\n",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, code in FILES.items():
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / name).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "project"
    for name in [name for name in sys.modules if name.partition(".")[0] == "project"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", FILES)
def test_a_digest_changes_with_the_code_that_a_module_imports_and_with_no_other(
    project: Path, name: str
):
    reader = importlib.import_module("project.reader")
    before = code_digest(reader)
    with open(project / name, "a") as file:
        file.write("# changed\n")
    assert (code_digest(reader) == before) == (name == "stranger.py")


def test_a_package_has_a_digest_too(project: Path):
    package = importlib.import_module("project.inner")
    before = code_digest(package)
    (project / "inner" / "depth.py").write_text("CONSTANT = 2\n")
    assert code_digest(package) != before


def test_a_digest_is_the_same_each_time():
    assert code_digest(womd) == code_digest(womd)
