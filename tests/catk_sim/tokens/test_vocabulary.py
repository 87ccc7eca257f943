import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from catk_sim.datatypes import AgentType
from catk_sim.tokens import MotionVocabulary, Provenance
from catk_sim.tokens.vocabulary import read_provenance
from tests import scenes

PROVENANCE = Provenance(
    source="a drawing",
    num_motions=(3, 2, 1),
    num_generated=(0, 0, 1),
    tolerance=(0.05, 0.05, 0.025),
    seed=2,
    command="python -m catk_sim.tokens.build",
    version="0.1.0",
)


@pytest.fixture
def vocabulary() -> MotionVocabulary:
    arcs = scenes.arc_vocabulary()
    return MotionVocabulary.from_poses(arcs.poses, arcs.size)


@pytest.fixture
def path(vocabulary: MotionVocabulary, tmp_path: Path) -> Path:
    path = tmp_path / "arcs.safetensors"
    vocabulary.save(path, PROVENANCE)
    return path


def test_a_saved_vocabulary_loads_as_it_was(vocabulary: MotionVocabulary, path: Path) -> None:
    loaded = MotionVocabulary.load(path)
    assert torch.equal(loaded.poses, vocabulary.poses)
    assert torch.equal(loaded.size, vocabulary.size)
    assert loaded.digest == vocabulary.digest


def test_a_file_tells_where_its_vocabulary_comes_from(path: Path) -> None:
    assert read_provenance(path) == PROVENANCE


def test_equal_vocabularies_make_equal_files(
    vocabulary: MotionVocabulary, path: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.safetensors"
    vocabulary.save(again, PROVENANCE)
    assert again.read_bytes() == path.read_bytes()


def test_the_digest_depends_on_every_number(vocabulary: MotionVocabulary) -> None:
    nudged = vocabulary.poses.clone()
    nudged[1, 7, 3, 2] += 1e-6
    other = MotionVocabulary.from_poses(nudged, vocabulary.size)
    wider = MotionVocabulary.from_poses(vocabulary.poses, vocabulary.size + 1e-6)
    assert len({vocabulary.digest, other.digest, wider.digest}) == 3


def test_the_digest_does_not_depend_on_the_sign_of_zero(vocabulary: MotionVocabulary) -> None:
    signed = torch.where(vocabulary.poses == 0, -0.0, vocabulary.poses)
    assert MotionVocabulary.from_poses(signed, vocabulary.size).digest == vocabulary.digest


def test_the_digest_does_not_depend_on_the_precision(vocabulary: MotionVocabulary) -> None:
    double = vocabulary.to(torch.float64)
    assert MotionVocabulary.from_poses(double.poses, double.size).digest == vocabulary.digest


def test_a_changed_file_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="names the digest"):
        MotionVocabulary.load(path)


def test_a_vocabulary_with_a_false_digest_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names the digest arcs"):
        scenes.arc_vocabulary().save(tmp_path / "arcs.safetensors", PROVENANCE)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no vocabulary at"):
        MotionVocabulary.load(tmp_path / "nothing.safetensors")


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    path.write_text("tokens")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        MotionVocabulary.load(path)


def test_a_file_of_other_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"wanted tensors poses and size.*weight"):
        MotionVocabulary.load(path)


@pytest.mark.parametrize("shape", [(3, 4, 5, 3), (2, 4, 6, 3), (3, 4, 6, 2), (3, 6, 3)])
def test_poses_of_another_shape_are_refused(path: Path, shape: tuple[int, ...]) -> None:
    with safe_open(path, framework="pt") as file:
        size, metadata = file.get_tensor("size"), file.metadata()
    save_file({"poses": torch.zeros(shape), "size": size}, path, metadata=metadata)
    with pytest.raises(ValueError, match="3 types x tokens x 6 steps x 3, got"):
        MotionVocabulary.load(path)


def test_the_metadata_is_readable_by_others(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["vocabulary"])["source"] == "a drawing"


def test_a_token_that_is_not_a_number_is_refused(vocabulary: MotionVocabulary) -> None:
    broken = vocabulary.poses.clone()
    broken[0, 1, 5, 0] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        MotionVocabulary.from_poses(broken, vocabulary.size)


def test_a_token_that_starts_elsewhere_is_refused(vocabulary: MotionVocabulary) -> None:
    broken = vocabulary.poses.clone()
    broken[0, 1, 0, 0] = 1
    with pytest.raises(ValueError, match="start from the pose"):
        MotionVocabulary.from_poses(broken, vocabulary.size)


def test_token_0_must_stand_still(vocabulary: MotionVocabulary) -> None:
    broken = vocabulary.poses.clone()
    broken[2, 0, 5, 0] = 0.06
    with pytest.raises(ValueError, match="token 0 of every type must stand still"):
        MotionVocabulary.from_poses(broken, vocabulary.size)


def test_agents_of_other_types_move_as_vehicles() -> None:
    types = torch.tensor(
        [
            AgentType.UNSET,
            AgentType.VEHICLE,
            AgentType.PEDESTRIAN,
            AgentType.CYCLIST,
            AgentType.OTHER,
        ]
    )
    assert MotionVocabulary.type_index(types).tolist() == [0, 0, 1, 2, 0]


def test_corners_go_round_from_the_left_front(vocabulary: MotionVocabulary) -> None:
    still = vocabulary.end_corners[0, 0]
    expected = torch.tensor([[2.4, 1.0], [2.4, -1.0], [-2.4, -1.0], [-2.4, 1.0]])
    torch.testing.assert_close(still, expected)


def test_corners_move_with_the_token(vocabulary: MotionVocabulary) -> None:
    straight = 4 * 7 + 3 + 1  # 4 m/s, no turn: 2 m ahead.
    moved = vocabulary.end_corners[2, straight] - vocabulary.end_corners[2, 0]
    torch.testing.assert_close(moved, torch.tensor([2.0, 0.0]).expand(4, 2))


def test_the_shipped_vocabulary_has_2048_different_tokens_of_each_type() -> None:
    vocabulary = MotionVocabulary.default()
    assert vocabulary.poses.shape == (3, 2048, 6, 3)
    for ends in vocabulary.end_poses:
        assert len(ends.unique(dim=0)) == 2048


def test_nobody_drifts_in_the_shipped_vocabulary() -> None:
    assert not MotionVocabulary.default().poses[:, 0].any()


def test_the_shipped_vocabulary_reaches_real_speeds() -> None:
    ahead = MotionVocabulary.default().end_poses[..., 0]
    assert (ahead.amax(-1) > torch.tensor([15.0, 1.5, 5.0])).all()  # Metres in half a second.
    assert (ahead.amin(-1) < torch.tensor([-0.5, -0.1, -0.1])).all()


def test_the_table_of_rows_is_what_the_rows_are_found_by(vocabulary: MotionVocabulary) -> None:
    kinds = torch.tensor(list(AgentType))
    assert torch.equal(vocabulary.row_of_type[kinds], vocabulary.type_index(kinds))


def test_corners_lie_about_the_centre_where_a_token_does_not_move(
    vocabulary: MotionVocabulary,
) -> None:
    assert not vocabulary.end_poses[:, 0].any()
    expected = vocabulary.end_corners[:, 0].permute(2, 1, 0)
    torch.testing.assert_close(vocabulary.box_corners, expected, atol=0, rtol=0)


def test_placements_tell_the_ends_of_tokens(vocabulary: MotionVocabulary) -> None:
    x, y, cos, sin = vocabulary.end_placements
    assert torch.equal(torch.stack([x, y], dim=-1), vocabulary.end_poses[..., :2])
    torch.testing.assert_close(torch.atan2(sin, cos), vocabulary.end_poses[..., 2])
