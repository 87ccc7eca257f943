"""Models of Stable-Baselines3 as policies."""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO
from torch import nn

from catk_sim.constants import HISTORY_STEPS
from catk_sim.datasets.batching import collate
from catk_sim.datatypes import Scenario
from catk_sim.dynamics import Held, TokenDynamics
from catk_sim.envs import WaymoVectorEnv
from catk_sim.envs.sb3 import PresentRolloutBuffer, WaymoVecEnv
from catk_sim.rollout import Policy, rollout
from policies.registry import make_policy
from policies.sb3 import SB3Policy, ViewEncoder, load_policy, save_model
from tests.catk_sim.envs import variations
from tests.scenes import arc_vocabulary, straight_road

WORLDS = [straight_road(), variations.crowd(5, seed=1)]
SMALL: dict[str, Any] = {"max_map_points": 8, "max_lights": 1, "max_neighbors": 2}
STEPS = 15


def make_model(controlled: str = "all", **changes: Any) -> PPO:
    """A model whose actions depend on what it sees, and are not small."""
    arguments = {"data": WORLDS, "action": "bicycle", "action_repeat": 5, "horizon": STEPS}
    envs = WaymoVecEnv(2, controlled=controlled, ends_on=(), **{**arguments, **SMALL, **changes})
    model = PPO(
        "MultiInputPolicy",
        envs,
        n_steps=2,
        batch_size=2 * envs.num_envs,
        rollout_buffer_class=PresentRolloutBuffer,
        policy_kwargs={
            "features_extractor_class": ViewEncoder,
            "features_extractor_kwargs": {"hidden_dim": 8},
            "net_arch": [8],
        },
        device="cpu",
        seed=1,
    )
    torch.manual_seed(3)
    nn.init.normal_(model.policy.get_submodule("action_net").get_parameter("weight"), std=2.0)
    return model


def played(model: PPO, scenarios: list[Scenario], num_actions: int) -> torch.Tensor:
    """Where the agents are when the environment is stepped by what the model predicts."""
    envs = model.get_env()
    assert envs is not None
    assert isinstance(envs.unwrapped, WaymoVecEnv)
    worlds = envs.unwrapped
    worlds.set_options(
        [
            {"scenario_index": row // worlds.episodes.agents_per_world}
            for row in range(worlds.num_envs)
        ]
    )
    rows = worlds.reset()
    places = []
    for _ in range(num_actions):
        actions, _ = model.predict(rows, deterministic=True)
        step = worlds.episodes.step(actions.reshape(2, -1, *actions.shape[1:]))
        assert not step.terminated.any()
        places.append(worlds.episodes.state.history.slice(HISTORY_STEPS - 5, HISTORY_STEPS).xy)
        rows = worlds._observation()
    return torch.cat(places, dim=-2)


@pytest.mark.parametrize("controlled", ["all", "sdc"])
def test_it_drives_as_in_training(controlled: str, tmp_path: Path) -> None:
    model = make_model(controlled)
    save_model(model, tmp_path / "model.zip")
    expected = played(model, WORLDS, STEPS // 5)
    batch = collate(WORLDS)
    mask = batch.agents.is_sdc if controlled == "sdc" else None
    policy = load_policy(tmp_path / "model.zip")
    driven = rollout(policy, batch, num_steps=STEPS, controlled=mask).simulated
    xy = driven.xy[0, ..., HISTORY_STEPS:, :]
    valid = driven.valid[0, ..., HISTORY_STEPS:, None]
    torch.testing.assert_close(xy * valid, expected * valid, rtol=1e-5, atol=1e-3)
    # It is not the log that is compared.
    log = batch.log.xy[..., HISTORY_STEPS : HISTORY_STEPS + STEPS, :]
    assert ((xy - log) * valid).norm(dim=-1).max() > 1


def test_it_is_a_policy_over_any_batch(tmp_path: Path) -> None:
    save_model(make_model(), tmp_path / "model.zip")
    policy = load_policy(tmp_path / "model.zip")
    assert isinstance(policy, Policy)
    assert isinstance(policy.dynamics, Held)
    assert policy.dynamics.steps_per_action == 5
    together = rollout(policy, collate(WORLDS), num_rollouts=2, num_steps=5).simulated
    alone = rollout(policy, WORLDS[0], num_rollouts=1, num_steps=5).simulated
    for number in range(2):
        torch.testing.assert_close(together.xy[number, 0, :3], alone.xy[0], rtol=1e-5, atol=1e-4)


def test_actions_are_drawn_from_the_generator(tmp_path: Path) -> None:
    save_model(make_model(), tmp_path / "model.zip")
    policy = load_policy(tmp_path / "model.zip", deterministic=False)

    def drawn(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        before = torch.random.get_rng_state()
        driven = rollout(policy, WORLDS[0], num_rollouts=2, num_steps=10, generator=generator)
        assert torch.equal(torch.random.get_rng_state(), before)
        return driven.simulated.xy

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert not torch.equal(drawn(1)[0], drawn(1)[1])
    assert rollout(policy, WORLDS[0], num_steps=5).actions.data.abs().max() > 0


def test_actions_are_cut_off_as_in_training() -> None:
    model = make_model()
    bias = model.policy.get_submodule("action_net").get_parameter("bias")
    with torch.no_grad():
        bias.copy_(torch.tensor([100.0, -100.0]))
    policy = SB3Policy(model, action="bicycle", action_repeat=5)
    controls = rollout(policy, WORLDS[0], num_steps=5).actions.data[0, :, 0]
    assert controls[0].tolist() == pytest.approx([6.0, -0.3])


def test_who_is_not_controlled_is_left_alone() -> None:
    policy = SB3Policy(make_model(), action="bicycle", action_repeat=5)
    nobody = torch.zeros(3, dtype=torch.bool)
    driven = rollout(policy, WORLDS[0], num_steps=5, controlled=nobody)
    assert not driven.actions.data.any()
    log = WORLDS[0].log.slice(0, HISTORY_STEPS + 5)
    assert torch.equal(driven.simulated.xy[0], log.xy)


def test_it_may_be_the_traffic_of_an_environment() -> None:
    policy = SB3Policy(make_model(), action="bicycle", action_repeat=5)
    arguments = {"data": [WORLDS[0]], "action": "delta", "controlled": "sdc"}
    envs, log = (
        WaymoVectorEnv(1, background=background, **arguments) for background in (policy, None)
    )
    for env in (envs, log):
        env.reset(seed=0)
        for _ in range(10):
            env.step(np.zeros((1, 3), dtype=np.float32))
    moved = (envs.state.current.xy - log.state.current.xy)[0, :, 0].norm(dim=-1)
    assert moved[0] == 0
    assert moved[2] > 0.1


def test_a_token_model_drives_by_tokens(tmp_path: Path) -> None:
    envs = WaymoVecEnv(2, data=WORLDS, controlled="sdc", action="token", **SMALL)
    model = DQN("MultiInputPolicy", envs, buffer_size=10, device="cpu")
    save_model(model, tmp_path / "model.zip")
    policy = load_policy(tmp_path / "model.zip")
    assert isinstance(policy.dynamics, TokenDynamics)
    assert rollout(policy, WORLDS[0], num_steps=5).actions.data.dtype == torch.int64
    own = WaymoVecEnv(2, data=WORLDS, controlled="sdc", vocabulary=arc_vocabulary(), **SMALL)
    model = DQN("MultiInputPolicy", own, buffer_size=10, device="cpu")
    with pytest.raises(ValueError, match="of the vocabulary that ships"):
        save_model(model, tmp_path / "own.zip")


def test_the_registry_knows_a_model_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "model.zip"
    save_model(make_model(), file)
    assert isinstance(make_policy(str(file)), SB3Policy)
    assert isinstance(make_policy(str(file), deterministic=False), SB3Policy)
    with pytest.raises(FileNotFoundError, match="no model at"):
        make_policy(str(tmp_path / "other.zip"))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    model = make_model()
    with pytest.raises(ValueError, match=r"must end in \.zip"):
        save_model(model, tmp_path / "model")
    file = tmp_path / "model.zip"
    file.write_text("nothing")
    with pytest.raises(ValueError, match="is no model that"):
        load_policy(file)
    model.save(file)
    with pytest.raises(ValueError, match="is no model that"):
        load_policy(file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("catk_sim.json", '{"format": 7}')
    with pytest.raises(ValueError, match="of format 1, got 7"):
        load_policy(file)
    other = PPO("MlpPolicy", "CartPole-v1", device="cpu")
    with pytest.raises(ValueError, match="wanted a model with a WaymoVecEnv"):
        save_model(other, file)
    with pytest.raises(ValueError, match="wanted a model that sees views"):
        SB3Policy(other, action="bicycle", action_repeat=5)


def test_the_encoder_does_not_mind_order_or_padding() -> None:
    envs = WaymoVecEnv(1, data=[variations.crowd(30)], controlled="sdc", max_neighbors=12)
    envs.seed(0)
    views = {name: torch.tensor(rows).float() for name, rows in envs.reset().items()}
    torch.manual_seed(0)
    encoder = ViewEncoder(envs.observation_space, hidden_dim=8)
    expected = encoder(views)
    assert expected.shape == (1, 32)
    for name in ("neighbors", "map", "lights"):
        assert views[f"{name}_valid"].any()
        changed = dict(views)
        order = torch.randperm(views[name].shape[1])
        for key in (name, f"{name}_valid"):
            changed[key] = views[key][:, order]
        torch.testing.assert_close(encoder(changed), expected)
        # What is not valid is not looked at, whatever is valid is.
        changed[f"{name}_valid"] = torch.zeros_like(views[f"{name}_valid"])
        assert not torch.allclose(encoder(changed), expected)
        without = encoder(changed)
        changed[name] = views[name] + 3
        torch.testing.assert_close(encoder(changed), without)


IMPORT = """
import sys
sys.modules["stable_baselines3"] = None
from policies.registry import make_policy
make_policy("model.zip")
"""


def test_it_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'catk-sim[rl]'" in done.stderr
