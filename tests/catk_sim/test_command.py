from importlib import import_module

import pytest

from catk_sim.command import DEBUG, FAILED, INTERRUPTED, UserError, run_command

COMMANDS = {
    "catk_sim.datasets.export": "",
    "catk_sim.datasets.prepare": "",
    "catk_sim.datasets.synthetic": ".__main__",
    "catk_sim.datasets.synthetic.make_benchmark": "",
    "catk_sim.datasets.synthetic.statistics": "",
    "catk_sim.doctor": "",
    "catk_sim.metrics.sim_agents": ".__main__",
    "catk_sim.submission": ".__main__",
    "catk_sim.tokens.build": "",
    "trainers.bc": "",
    "trainers.catk": "",
    "trainers.evaluate": "",
    "trainers.submit": "",
}
"""What one types, and what is behind it."""


def refuse(arguments: list[str]) -> int:
    raise ValueError(f"wanted none, got {arguments}")


def lack(arguments: list[str]) -> int:
    raise UserError("there is no compiler")


def stop(arguments: list[str]) -> int:
    raise KeyboardInterrupt


def test_a_command_gets_its_arguments_and_says_how_it_ended() -> None:
    assert run_command(lambda arguments: len(arguments), ["a", "b"]) == 2
    assert run_command(lambda arguments: None, []) == 0


def test_without_arguments_those_of_the_process_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["name", "a", "--debug", "b", "c"])
    assert run_command(lambda arguments: len(arguments)) == 3


def test_what_a_user_can_mend_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(refuse, ["this"]) == FAILED == 2
    assert capsys.readouterr().err == "error: wanted none, got ['this']  (--debug shows where)\n"


def test_what_the_machine_lacks_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lack, []) == FAILED
    assert capsys.readouterr().err == "error: there is no compiler  (--debug shows where)\n"
    with pytest.raises(UserError, match="there is no compiler"):
        run_command(lack, ["--debug"])


def test_debug_shows_where_it_happened() -> None:
    with pytest.raises(ValueError, match="wanted none, got \\['this'\\]"):
        run_command(refuse, ["--debug", "this"])


def fail(arguments: list[str]) -> int:
    raise RuntimeError("shapes differ")


def test_a_fault_of_our_own_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda arguments: 1 // 0, [])
    with pytest.raises(RuntimeError, match="shapes differ"):
        run_command(fail, [])


def test_an_interrupted_command_ends_as_the_shell_expects(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(stop, []) == INTERRUPTED == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_names_it_and_says_what_debug_does(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = import_module(name + COMMANDS[name]).main
    with pytest.raises(SystemExit):
        run_command(command, ["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"usage: python -m {name} " in told
    assert DEBUG in told
