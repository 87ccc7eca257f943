from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from catk_sim.envs import WaymoVectorEnv, pictures
from catk_sim.envs.pettingzoo import parallel_env
from catk_sim.envs.sb3 import WaymoVecEnv
from catk_sim.visualization import colors
from tests.catk_sim.envs import variations
from tests.catk_sim.envs.conftest import FakeWindow
from tests.scenes import arc_vocabulary, straight_road


def arguments(**changes: Any) -> dict[str, Any]:
    return {
        "data": [straight_road()],
        "vocabulary": arc_vocabulary(),
        "action": "delta",
        "max_map_points": 16,
        "max_lights": 1,
        **changes,
    }


def test_reset_and_step_show_the_world(windows: list[FakeWindow]) -> None:
    env = gymnasium.make("CatK-Waymo-v0", render_mode="human", **arguments())
    assert not windows
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.step(env.action_space.sample())
    assert env.render() is None
    (window,) = windows
    assert len(window.shown) == 3
    assert window.shown[0].shape == (800, 800, 3)
    assert (window.shown[0] != window.shown[2]).any()
    env.close()
    assert not window.is_open


def test_what_is_shown_is_what_an_array_would_have(windows: list[FakeWindow]) -> None:
    shown, drawn = (
        gymnasium.make("CatK-Waymo-v0", render_mode=mode, **arguments())
        for mode in ("human", "rgb_array")
    )
    for env in (shown, drawn):
        env.reset(seed=0)
        env.step(np.zeros(env.action_space.shape or (), dtype=np.float32))
    picture: Any = drawn.render()
    np.testing.assert_array_equal(windows[0].shown[-1], picture)


def test_every_autoreset_mode_shows_how_an_episode_ends_and_the_next_begins(
    windows: list[FakeWindow],
) -> None:
    for mode in AutoresetMode:
        crash = arguments(controlled="sdc", data=[variations.hit_at(11)], autoreset_mode=mode)
        envs = WaymoVectorEnv(1, render_mode="human", **crash)
        envs.reset()
        still = np.zeros(envs.action_space.shape or (), dtype=np.float32)
        envs.step(still)
        if mode == AutoresetMode.NEXT_STEP:
            envs.step(still)
        elif mode == AutoresetMode.DISABLED:
            envs.reset()
    assert len(windows) == len(AutoresetMode)
    for window in windows:
        start, end, next_start = window.shown
        np.testing.assert_array_equal(start, next_start)
        assert (end == colors.COLLISION).all(axis=-1).any()
        assert not (start == colors.COLLISION).all(axis=-1).any()
        np.testing.assert_array_equal(end, windows[0].shown[1])


def test_a_window_runs_in_real_time(windows: list[FakeWindow]) -> None:
    for action, fps in (("delta", 10), ("token", 2)):
        envs = WaymoVectorEnv(1, render_mode="human", **arguments(action=action))
        envs.reset()
        assert windows[-1].fps == envs.metadata["render_fps"] == fps
        assert set(envs.metadata["render_modes"]) == {"human", "rgb_array"}


def test_one_window_shows_all_worlds(windows: list[FakeWindow]) -> None:
    envs = WaymoVectorEnv(3, render_mode="human", **arguments())
    envs.reset()
    (window,) = windows
    assert window.shown[0].shape == (802, 802, 3)
    assert (window.shown[0][402:, 402:] == 255).all()


def test_nothing_is_drawn_for_a_closed_window(
    windows: list[FakeWindow], monkeypatch: pytest.MonkeyPatch
) -> None:
    envs = WaymoVectorEnv(1, render_mode="human", **arguments())
    envs.reset()
    windows[0].is_open = False

    def fail(*args: Any, **given: Any) -> None:
        raise AssertionError("nobody looks")

    monkeypatch.setattr(pictures.Pictures, "draw", fail)
    envs.reset()
    assert len(windows) == 1


def test_other_interfaces_show_and_close_the_window(windows: list[FakeWindow]) -> None:
    given = arguments(action="bicycle", render_mode="human")
    parallel = parallel_env(**given)
    parallel.reset(seed=0)
    parallel.step({agent: parallel.action_space(agent).sample() for agent in parallel.agents})
    assert parallel.render() is None
    parallel.close()
    vector = WaymoVecEnv(2, **given)
    vector.reset()
    assert vector.render("human") is None
    vector.close()
    assert [len(window.shown) for window in windows] == [2, 1]
    assert not any(window.is_open for window in windows)


def test_collisions_and_agents_off_the_road_are_marked_until_the_next_episode() -> None:
    envs = WaymoVectorEnv(
        1,
        render_mode="rgb_array",
        autoreset_mode=AutoresetMode.DISABLED,
        **arguments(
            terminate_on_collision=False,
            controlled="sdc",
            data=[variations.moved(variations.hit_at(11), 50.0)],
        ),
    )
    envs.reset()
    seen = [_marks(envs)]
    envs.step(np.zeros(envs.action_space.shape or (), dtype=np.float32))
    seen.append(_marks(envs))
    envs.reset()
    seen.append(_marks(envs))
    assert seen == [(False, False), (True, True), (False, False)]


def _marks(envs: WaymoVectorEnv) -> tuple[bool, bool]:
    drawn = envs.render()
    assert drawn is not None
    collided, offroad = (
        bool((drawn[0] == color).all(axis=-1).any()) for color in (colors.COLLISION, colors.OFFROAD)
    )
    return collided, offroad


def test_a_world_is_drawn_after_a_larger_one_entered_beside_it() -> None:
    envs = WaymoVectorEnv(
        2,
        render_mode="rgb_array",
        **arguments(data=[straight_road(), variations.crowd(6)], autoreset_mode="Disabled"),
    )
    envs.reset(options={"scenario_index": [0, 0]})
    before = envs.render()
    envs.reset(options={"scenario_index": [0, 1], "reset_mask": np.array([False, True])})
    after = envs.render()
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1] != after[1]).any()
