"""The code that READMEs show runs."""

import json
import re
from pathlib import Path

import pytest
import torch

from trainers import evaluate
from trainers.configs import RolloutConfig

ROOT = Path(__file__).resolve().parents[1]


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)


@pytest.mark.slow
def test_the_ten_lines_run(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("README.md")
    exec(code, {})
    assert "collision_rate" in capsys.readouterr().out


@pytest.mark.slow
def test_the_policy_of_twenty_lines_drives() -> None:
    _interface, code = blocks("policies/README.md")
    namespace: dict[str, object] = {"__name__": "readme"}
    exec(code, namespace)
    exec(
        "from tests import scenes\n"
        "driven = rollout(Brake(), scenes.straight_road())\n"
        "speed = driven.simulated.velocity[0, 0].norm(dim=-1)\n"
        # 10 m/s, slowing down by 2 m/s² for 8 s: stands after 5 s.
        "assert abs(speed[11 + 19] - 6) < 0.3\n"
        "assert speed[-1] < 0.1\n",
        namespace,
    )


@pytest.mark.slow
def test_the_policy_is_evaluated_from_its_file(tmp_path: Path) -> None:
    _interface, code = blocks("policies/README.md")
    file = tmp_path / "my_policy.py"
    file.write_text(code)
    arguments = ["--rollouts.num-rollouts", "1", "--cache", str(tmp_path / "cache")]
    arguments += ["--data", "synthetic:1", "--output", str(tmp_path)]

    evaluate.main([f"{file}:Brake", "log_replay", *arguments])

    figures = json.loads((tmp_path / "metrics.json").read_text())["policies"]
    assert figures[f"{file}:Brake"]["all"]["ade"] > figures["log_replay"]["all"]["ade"] + 1


def test_what_is_no_policy_is_not_evaluated_as_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Mine:\n    pass\n")
    for name, complaint in (
        (f"{file}:Mine", "or a policy with dynamics, init, act"),
        (f"{tmp_path}/absent.py:Mine", "absent.py"),
        ("policies.planners.idm:IDMPlanner", "is a planner: --planner"),
        ("runs/absent", "smart_nano; got 'runs/absent', which is no folder"),
    ):
        with pytest.raises((ValueError, OSError), match=complaint):
            evaluate.load_policy(name, RolloutConfig(), torch.device("cpu"))
