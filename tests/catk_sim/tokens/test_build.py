import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from catk_sim.command import run_command
from catk_sim.constants import CURRENT_STEP
from catk_sim.datasets.sources import open_scenarios
from catk_sim.tokens import MotionVocabulary, corner_distance, tokenize
from catk_sim.tokens.build import (
    BuildConfig,
    MotionSample,
    build,
    collect_motions,
    fill_up,
    main,
)
from catk_sim.tokens.motions import LIMITS, distinct_index, generate_motions
from catk_sim.tokens.vocabulary import read_provenance
from tests import scenes
from tests.catk_sim.datasets.files import write_tfrecord
from tests.catk_sim.tokens import reference
from tests.shared import shared_path

CONFIG = BuildConfig(data="straight road", output=Path("unused"), num_tokens=20, min_motions=300)


def sample(*parts: torch.Tensor, capacity: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    kept = MotionSample(LIMITS[0], capacity, generator)
    for part in parts:
        kept.add(part)
    return kept.motions()


@pytest.fixture
def many(generator: torch.Generator) -> torch.Tensor:
    return generate_motions(1000, LIMITS[0], generator)


def test_a_sample_does_not_depend_on_how_the_stream_is_cut(many: torch.Tensor) -> None:
    assert torch.equal(sample(many), sample(*many.split(70)))


def test_a_sample_is_even(many: torch.Tensor) -> None:
    order = many[:, -1, 0].argsort()
    kept = sample(many[order], capacity=500)
    assert len(kept) == 500
    slow = (kept[:, -1, 0] < many[:, -1, 0].median()).float().mean()
    assert 0.4 < slow < 0.6


def test_a_sample_holds_distinct_plausible_motions(many: torch.Tensor) -> None:
    glitch = many[:1] * 10
    kept = sample(many[:30], many[:30], glitch)
    assert len(kept) == len(distinct_index(kept)) == 30
    assert kept.abs().max() <= many[:30].abs().max()


def test_motions_are_collected_by_type() -> None:
    vehicles, pedestrians, cyclists = collect_motions([scenes.straight_road()], CONFIG)
    # Steady driving and parking; standing; nobody.
    assert [len(vehicles), len(pedestrians), len(cyclists)] == [2, 1, 0]


def test_the_stride_decides_how_many_motions_there_are() -> None:
    scenario = scenes.straight_road()
    faster = scenario.log.xy + 0.002 * torch.arange(91.0).square()[:, None]
    scenario = scenario.replace(log=scenario.log.replace(xy=faster))
    counts = [
        len(collect_motions([scenario], replace(CONFIG, stride=stride))[1]) for stride in (1, 30)
    ]
    assert counts == [86, 3]


def test_mirrored_motions_are_added_if_wanted(many: torch.Tensor) -> None:
    scenario = scenes.straight_road()
    turning = scenario.log.heading + 0.02 * torch.arange(91)
    scenario = scenario.replace(log=scenario.log.replace(heading=turning))
    plain = collect_motions([scenario], CONFIG)[1]
    both = collect_motions([scenario], replace(CONFIG, mirror=True))[1]
    assert len(plain) == 1
    assert sorted(both[:, -1, 2].tolist()) == pytest.approx([-0.1, 0.1])


def test_types_with_little_data_are_filled_up() -> None:
    logged = collect_motions([scenes.straight_road()], CONFIG)
    filled, generated = fill_up(logged, CONFIG)
    assert [len(of_type) for of_type in filled] == [300, 300, 300]
    assert generated == [298, 299, 300]
    assert torch.equal(filled[0][:2], logged[0])
    _, generated = fill_up(logged, replace(CONFIG, generated=1000))
    assert generated == [1000, 1000, 1000]


def test_nothing_is_generated_unless_asked_for(many: torch.Tensor) -> None:
    config = BuildConfig(data="little", output=Path("unused"))
    filled, generated = fill_up([many[:3], many[:0], many], config)
    assert [len(of_type) for of_type in filled] == [3, 0, 1000]
    assert generated == [0, 0, 0]


def test_a_type_with_too_few_motions_is_named() -> None:
    few = replace(CONFIG, min_motions=0)
    with pytest.raises(ValueError, match=r"20 distinct .* vehicles .* got 2 from straight road"):
        build([scenes.straight_road()], few)
    with pytest.raises(ValueError, match=r"wanted 2 distinct motions of pedestrians .* got 1 from"):
        build([scenes.straight_road()], replace(few, num_tokens=2))
    with pytest.raises(ValueError, match=r"got 2 from straight road and 17 generated: .*min_mot"):
        build([scenes.straight_road()], replace(few, min_motions=19))


def test_scenarios_without_futures_are_refused_however_much_may_be_generated() -> None:
    scenario = scenes.straight_road()
    test_split = scenario.replace(log=scenario.log.slice(0, CURRENT_STEP + 1))
    for scenarios in ([test_split], []):
        for config in (CONFIG, replace(CONFIG, min_motions=0), replace(CONFIG, generated=1000)):
            with pytest.raises(ValueError, match=r"30 steps .* straight road has none: .*future"):
                build(scenarios, config)


def test_a_vocabulary_tells_what_it_was_built_from() -> None:
    vocabulary, provenance = build([scenes.straight_road()], CONFIG)
    assert vocabulary.num_tokens == 20
    assert provenance.source == "straight road"
    assert provenance.num_motions == (300, 300, 300)
    assert provenance.num_generated == (298, 299, 300)
    assert provenance.tolerance[0] == 0.05


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="num_tokens must be at least 1, got 0"):
        replace(CONFIG, num_tokens=0)
    with pytest.raises(ValueError, match=r"tolerance must be above 0, got 0\.0"):
        replace(CONFIG, tolerance=0.0)
    for name in ("min_motions", "generated"):
        with pytest.raises(ValueError, match=f"{name} must be at least 0, got -1"):
            replace(CONFIG, **{name: -1})


def test_the_command_writes_a_vocabulary_and_tells_what_it_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_tfrecord(tmp_path / "some.tfrecord", ["a", "b"])
    output = tmp_path / "new" / "small.safetensors"
    given = f"--data {data} --output {output} --num-tokens 16 --min-motions 100".split()
    monkeypatch.setattr("sys.argv", ["build.py", *given])
    # The runtime type check does not take a tqdm for an Iterable.
    monkeypatch.setattr("catk_sim.tokens.build.tqdm", lambda scenarios, **style: scenarios)
    assert run_command(main) == 0
    vocabulary, provenance = MotionVocabulary.load(output), read_provenance(output)
    assert vocabulary.num_tokens == 16
    assert provenance.source == str(data)
    assert provenance.command == shlex.join(["python", "-m", "catk_sim.tokens.build", *given])
    told = capsys.readouterr().out
    assert "vehicles: 16 tokens from 100 motions (98 generated), 0.05 m apart\n" in told
    assert "cyclists: 16 tokens from 100 motions (100 generated)" in told
    assert f"{output}: digest {vocabulary.digest}\n" in told


@pytest.mark.slow
def test_real_scenes_tell_another_real_scene_to_the_centimetre() -> None:
    scenarios = open_scenarios(str(shared_path("data/womd_gpudrive_json")))
    real = BuildConfig(data="122 real scenes", output=Path("unused"), stride=5, min_motions=8192)
    vocabulary, _ = build(scenarios, real)
    [scenario] = open_scenarios(
        str(shared_path("data/womd_scenario_proto/motion_data_one_scenario.tfrecord"))
    )
    assert scenario.scenario_id == (reference.PROTO_SCENARIO,)
    scenario = scenario.to(torch.float32)
    told = tokenize(scenario.log, scenario.agents, vocabulary)
    row = vocabulary.type_index(scenario.agents.type)
    pose = torch.cat([told.tokens.xy, told.tokens.heading[..., None]], dim=-1)
    logged = torch.cat([told.logged_xy, told.logged_heading[..., None]], dim=-1)
    error = corner_distance(pose, logged, vocabulary.size[row][:, None])

    def mean_error(of_row: int) -> float:
        return error[told.tokens.valid & (row == of_row)[:, None]].mean().item()

    assert mean_error(0) < 0.025
    assert mean_error(1) < 0.03
