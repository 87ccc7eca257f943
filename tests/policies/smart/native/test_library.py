import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from catk_sim.command import UserError
from policies.smart.native import library as native
from policies.smart.native.library import NativeKernelError, library, status, takes

needs_compiler = pytest.mark.usefixtures("kernels")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, no wishes, and a quick compilation. What is loaded stays loaded."""
    monkeypatch.setenv("CATK_SIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CATK_SIM_NATIVE", raising=False)
    monkeypatch.setattr(native, "_FLAGS", ("-O0", *native._FLAGS[1:]))


def load() -> object:
    return library.__wrapped__()


def script(folder: Path, body: str) -> str:
    path = folder / "compiler"
    path.write_text(f"#!{sys.executable}\nimport sys, subprocess\n{body}\n")
    path.chmod(0o755)
    return str(path)


@needs_compiler
def test_the_kernels_are_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load() is not None
    [path] = (tmp_path / "cache").iterdir()
    assert status() == f"native kernels: {path}"
    monkeypatch.setattr(native, "_compile", lambda *_: pytest.fail("compiled again"))
    assert load() is not None


@needs_compiler
def test_several_may_compile_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = [future.result() for future in [pool.submit(native._build) for _ in range(4)]]
    # No half-written file and no scratch stays behind.
    assert list((tmp_path / "cache").iterdir()) == [paths[0]]
    assert load() is not None


@needs_compiler
def test_another_source_is_compiled_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = native._build()
    for source in native._SOURCES.glob("*.[ch]"):
        (tmp_path / source.name).write_bytes(source.read_bytes() + b"\n")
    monkeypatch.setattr(native, "_SOURCES", tmp_path)
    assert native._build() != first
    assert first.exists()


@needs_compiler
def test_another_processor_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first = native._build()
    monkeypatch.setattr(native, "_processor", lambda: "another")
    assert native._build() != first


@needs_compiler
def test_a_compiler_need_not_know_the_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    body = (
        "if any('=native' in argument for argument in sys.argv): sys.exit('what is native?')\n"
        "sys.exit(subprocess.run(['cc', *sys.argv[1:]]).returncode)"
    )
    monkeypatch.setenv("CC", script(tmp_path, body))
    assert load() is not None


def test_without_a_compiler_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with caplog.at_level(logging.WARNING):
        assert load() is None
    [record] = caplog.records
    assert "slower: there is no C compiler: none of cc, gcc, clang" in record.message
    assert "no C compiler" in status()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('no licence')", "does not run"),
        ("sys.exit('no licence' if '--version' not in sys.argv else 0)", "failed: no licence"),
        (
            "if '-o' in sys.argv: open(sys.argv[sys.argv.index('-o') + 1], 'w').write('nonsense')",
            "cannot load",
        ),
    ],
)
def test_a_broken_compiler_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, message: str
) -> None:
    monkeypatch.setenv("CC", script(tmp_path, body))
    assert load() is None
    monkeypatch.setenv("CATK_SIM_NATIVE", "1")
    with pytest.raises(NativeKernelError, match=message) as error:
        load()
    assert isinstance(error.value, UserError)  # A command tells it in one line.


def test_a_compiler_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -m32")
    assert "no-such-compiler -m32 does not run" in status()


@needs_compiler
def test_a_folder_that_cannot_be_written_to_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CATK_SIM_CACHE", str(tmp_path / "file" / "folder"))
    assert f"cannot write to {tmp_path / 'file' / 'folder'}" in status()


def test_the_kernels_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATK_SIM_NATIVE", "0")
    assert load() is None
    assert status() == "native kernels: off, by CATK_SIM_NATIVE=0"


def test_another_wish_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATK_SIM_NATIVE", "yes")
    with pytest.raises(ValueError, match="must be 0, 1 or empty, got 'yes'"):
        load()


def test_the_cache_lies_where_the_user_wants_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert native._cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("CATK_SIM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native._cache_folder() == tmp_path / "catk_sim"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert native._cache_folder() == Path.home() / ".cache" / "catk_sim"


@needs_compiler
def test_the_kernels_take_float32_on_a_processor() -> None:
    assert takes(torch.zeros(1))
    assert not takes(torch.zeros(1, dtype=torch.float64))
    assert not takes(torch.zeros(1, device="meta"))


@needs_compiler
@pytest.mark.slow
def test_kernels_for_narrower_processors_compute_the_same(tmp_path: Path) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("these are processors of another family")
    body = (
        "arguments = [a.replace('=native', '=x86-64') for a in sys.argv[1:]]\n"
        "sys.exit(subprocess.run(['cc', '-Wno-psabi', *arguments]).returncode)"
    )
    tests = Path(__file__).parent
    names = [str(tests / f"test_{name}.py") for name in ("attention", "encoding", "geometry")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *names],
        env={
            **os.environ,
            "CC": script(tmp_path, body),
            "CATK_SIM_CACHE": str(tmp_path / "cache"),
            "CATK_SIM_NATIVE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
