import pytest

from catk_sim import doctor
from catk_sim.doctor import Finding, Verdict
from catk_sim.visualization import window


def finding(subject: str) -> Finding:
    return next(one for one in doctor.examine() if one.subject == subject)


def test_a_whole_installation_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main() == 0

    told = capsys.readouterr().out
    for subject in ("catk-sim", "torch", "accelerator", "environment", "film writer"):
        assert subject in told
    assert "broken" not in told


def test_what_is_broken_is_told_with_its_reason_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> str:
        raise OSError("no such library")

    monkeypatch.setattr(doctor, "_environment", broken)

    assert finding("environment") == Finding(
        subject="environment", verdict=Verdict.BROKEN, detail="OSError: no such library"
    )
    assert doctor.main() == 1
    assert "no such library" in capsys.readouterr().out


def test_a_missing_extra_is_no_defect_and_its_command_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda module: None)

    missing = finding("pettingzoo")

    assert missing.verdict == Verdict.OPTIONAL
    assert "pip install 'catk-sim[pettingzoo]'" in missing.detail
    assert doctor.main() == 0


def test_every_extra_that_is_named_exists() -> None:
    extras = {
        line.partition("extra == ")[2].strip("'\"") for line in doctor.requires("catk-sim") or []
    }

    assert {extra for extra, _ in doctor.OPTIONAL.values()} <= extras


def test_a_machine_without_a_display_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(title: str, *, fps: int) -> None:
        raise RuntimeError("no display")

    monkeypatch.setattr(window, "Window", fail)
    missing = finding("window")
    assert (missing.verdict, missing.detail) == (Verdict.OPTIONAL, "no display")


def test_a_display_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class Window:
        def __init__(self, title: str, *, fps: int) -> None:
            opened.append(title)

        def close(self) -> None:
            opened.append("closed")

    monkeypatch.setattr(window, "Window", Window)
    assert finding("window").verdict == Verdict.OK
    assert opened == ["catk-sim", "closed"]


def test_the_doctor_tells_what_it_does_and_takes_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments, code, told in ((["--help"], 0, "installation"), (["more"], 2, "more")):
        with pytest.raises(SystemExit) as ended:
            doctor.main(arguments)
        assert ended.value.code == code
        output = capsys.readouterr()
        assert told in output.out + output.err
