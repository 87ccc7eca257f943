"""The code that READMEs show runs."""

import re
from pathlib import Path

import pytest

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
