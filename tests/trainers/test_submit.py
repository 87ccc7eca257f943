from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catk_sim.constants import CURRENT_STEP
from catk_sim.datasets import open_scenarios
from catk_sim.rollout import sim_agents
from catk_sim.submission import NUM_ROLLOUTS, read_submission, writer
from tests.catk_sim.submission.made import METADATA
from trainers import submit
from trainers.configs import SubmitConfig

DATA = "synthetic:3:7"
FLAGS = [
    *("--metadata.account-name", "someone@example.org"),
    *("--metadata.unique-method-name", "straight on"),
    *("--metadata.authors", "Some One", "Another"),
    *("--metadata.affiliation", "nowhere"),
    *("--metadata.description", "Everyone keeps their velocity."),
    *("--metadata.num-model-parameters", "0"),
]
COMPLIES = "--metadata.acknowledge-complies-with-closed-loop-requirement"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "s.tar.gz"


@pytest.fixture
def arguments(path: Path, cache: Path) -> list[str]:
    places = ["--data", DATA, "--output", str(path), "--cache", str(cache)]
    return ["constant_velocity", *places, *FLAGS]


def test_a_submission_holds_the_rollouts_of_all_sim_agents(
    arguments: list[str], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two batches, of which the second is smaller.
    submit.main([*arguments, COMPLIES, "--batch-size", "2"])
    size = path.stat().st_size / 1e6
    printed = capsys.readouterr().out
    assert printed == f"{path}: 3 scenarios, {size:.1f} MB, read back and checked\n"
    for rollouts, scenario in zip(read_submission(path), open_scenarios(DATA), strict=True):
        chosen = sim_agents(scenario)
        assert rollouts.scenario_id == scenario.scenario_id[0]
        assert rollouts.object_id.tolist() == scenario.agents.agent_id[chosen].tolist()
        # A tenth of a second after the current step.
        xy = scenario.log.xy[chosen, CURRENT_STEP] + scenario.origin[:2]
        xy = xy + 0.1 * scenario.log.velocity[chosen, CURRENT_STEP]
        for rollout in range(NUM_ROLLOUTS):
            found = np.stack([rollouts.x[rollout, :, 0], rollouts.y[rollout, :, 0]], axis=-1)
            np.testing.assert_allclose(found, xy.numpy(), atol=1e-3)


def test_compliance_is_not_taken_for_granted(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        submit.main(arguments)
    assert ended.value.code == 2
    assert "requirement" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"output": Path("s.zip")}, "ends in .tar.gz, got s.zip"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be positive"),
    ],
)
def test_what_cannot_run_is_refused_at_once(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SubmitConfig(**{"policy": "idm", "data": DATA, "metadata": METADATA, **change})


def test_a_wrong_policy_is_refused_before_data_is_opened(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(*_: object) -> None:
        raise AssertionError("data was opened")

    monkeypatch.setattr(submit, "prepare_if_needed", prepare)
    with pytest.raises(ValueError, match="got 'nobody', which is no folder"):
        submit.main(["nobody", *arguments[1:], COMPLIES])


def test_what_was_written_is_checked(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_the_end(path: Path, *args: Any, **kwargs: Any) -> None:
        writer.write_submission(path, *args, **kwargs)
        path.write_bytes(path.read_bytes()[:-100])

    monkeypatch.setattr(submit, "write_submission", lose_the_end)
    with pytest.raises(ValueError, match="the archive is damaged"):
        submit.main([*arguments, COMPLIES])
