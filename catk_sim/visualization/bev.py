"""A simulated world, seen from above."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from catk_sim.datatypes import Scenario, SimState, TensorTree, TrafficLightState, Trajectory
from catk_sim.visualization.agent_layer import (
    VisibleAgents,
    agent_colors,
    draw_agents,
    draw_ghosts,
    draw_modes,
    draw_trails,
)
from catk_sim.visualization.annotations import Annotations
from catk_sim.visualization.backdrop import Backdrop
from catk_sim.visualization.canvas import Canvas, Frame
from catk_sim.visualization.framing import Follow, Framing, require_one_world
from catk_sim.visualization.light_layer import draw_light

_Flags = Bool[np.ndarray, " agents"]


@dataclass(frozen=True, eq=False, kw_only=True)
class PredictedModes(TensorTree):
    """Where agents may be next: the ends of likely motion tokens, or the modes of a mixture.

    Attributes:
        xy: Where each mode leads (m), in the scenario's frame.
        probability: How likely it is. Modes without any are not drawn.
    """

    xy: Float[Tensor, "agents modes 2"]
    probability: Float[Tensor, "agents modes"]


class BirdsEyeRenderer:
    """Draws one world again and again; its map is drawn once.

    Simulated agents are full of colour, agents that replay the log are pale. A hollow box stands
    where the log has a simulated agent. An agent that would be too small to see is enlarged to six
    pixels of a picture of 800.

    Args:
        scenario: The world, without batch dimensions.
        size: Sides of the pictures (pixels).
        metres: Sides of the pictures on the ground (m). By default, what it takes to show every
            agent of the log, or 80 m if an agent is followed.
        follow: What stays in the middle. While an agent is absent, that is where it was last, or
            else where the log has it first.
        legend: Whether to draw the legend into every picture.
        title: To write above the time.
        is_written_on: Whether title, time and scale stand in the pictures.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        size: int = 800,
        metres: float | int | None = None,
        follow: Follow = "scene",
        legend: bool = False,
        title: str = "",
        is_written_on: bool = True,
    ) -> None:
        require_one_world(scenario)
        scenario = scenario.to("cpu")
        self._log = scenario.log
        self._lights = scenario.traffic_lights
        self._present = scenario.agents.valid.numpy()
        self._size = scenario.agents.size[:, :2].double().numpy()
        self._type = scenario.agents.type.numpy()
        self._is_sdc = scenario.agents.is_sdc.numpy()
        self._framing = Framing(scenario, follow)
        metres = self._framing.metres if metres is None else metres
        self._backdrop = Backdrop(scenario.roadgraph, size=size, metres=metres)
        self._annotations = (
            Annotations(self._backdrop.lens, title=title, legend=legend) if is_written_on else None
        )

    def render(
        self,
        state: SimState,
        *,
        collided: Bool[Tensor, " agents"] | None = None,
        offroad: Bool[Tensor, " agents"] | None = None,
        modes: PredictedModes | None = None,
    ) -> Frame:
        """Draws a state of this world, with the history that it carries as trails.

        Args:
            state: A state of the scenario that the renderer was made for.
            collided: Agents to mark as collided.
            offroad: Agents to mark as off the road.
            modes: Where agents may go next.
        """
        require_one_world(state.scenario)
        return self.render_motion(
            state.history,
            step=int(state.step),
            controlled=state.controlled,
            collided=collided,
            offroad=offroad,
            modes=modes,
        )

    def render_motion(
        self,
        motion: Trajectory,
        *,
        step: int,
        controlled: Bool[Tensor, " agents"],
        collided: Bool[Tensor, " agents"] | None = None,
        offroad: Bool[Tensor, " agents"] | None = None,
        modes: PredictedModes | None = None,
    ) -> Frame:
        """Draws the last step of a motion, and the steps before it as trails.

        Args:
            motion: The agents of this world, over any number of steps.
            step: Step of the log's time at which the motion ends. It tells the state of the lights
                and where the log has the agents; outside the log neither is drawn.
            controlled: Agents that are simulated.
            collided: Agents to mark as collided.
            offroad: Agents to mark as off the road.
            modes: Where agents may go next.
        """
        self._check(motion)
        motion = motion.to("cpu")
        xy = motion.xy.double().numpy()
        valid = motion.valid.numpy() & self._present[:, None]
        acts = controlled.cpu().numpy()
        canvas = self._backdrop.view(self._framing.center(xy, valid))
        shown = self._in_view(canvas, xy[:, -1], valid[:, -1])
        visible = self._visible(shown, motion.at(-1), acts, collided=collided, offroad=offroad)
        self._draw_lights(canvas, step)
        draw_trails(canvas, xy[shown], valid[shown], agent_colors(visible))
        self._draw_log(canvas, step, acts)
        if modes is not None:
            self._draw_modes(canvas, xy[:, -1], modes.to("cpu"), shown)
        draw_agents(canvas, visible)
        if self._annotations is not None:
            self._annotations.write(canvas.pixels, step)
        return canvas.pixels

    def _check(self, motion: Trajectory) -> None:
        if motion.valid.shape[:-1] != self._present.shape or motion.num_steps == 0:
            raise ValueError(
                f"wanted a motion of shape ({len(self._present)} agents, 1 or more steps), "
                f"got {tuple(motion.valid.shape)}"
            )
        lost = motion.valid & ~(motion.xy.isfinite().all(dim=-1) & motion.heading.isfinite())
        if lost.any():
            agents = lost.any(dim=-1).nonzero().flatten().tolist()
            raise ValueError(f"agents {agents} are valid, but their poses are not finite")

    def _in_view(self, canvas: Canvas, xy: Float[np.ndarray, "agents 2"], valid: _Flags) -> _Flags:
        reach = canvas.camera.metres / 2 + self._size.max(axis=1)
        distance = np.abs(xy - np.array(canvas.camera.center)).max(axis=1)
        return valid & (distance < reach)

    def _draw_lights(self, canvas: Canvas, step: int) -> None:
        if not 0 <= step < self._lights.state.shape[-1]:
            return
        seen = self._lights.valid[:, step]
        points = self._lights.stop_xyz[seen, step, :2].double().numpy()
        for xy, state in zip(points, self._lights.state[seen, step].tolist(), strict=True):
            draw_light(canvas, xy, TrafficLightState(state))

    def _draw_modes(
        self,
        canvas: Canvas,
        start: Float[np.ndarray, "agents 2"],
        modes: PredictedModes,
        shown: _Flags,
    ) -> None:
        if modes.probability.shape[0] != len(shown):
            raise ValueError(
                f"wanted modes of {len(shown)} agents, got those of {modes.probability.shape[0]}"
            )
        probability = modes.probability.double().numpy()
        agent, mode = np.nonzero(probability * shown[:, None])
        ends = modes.xy.double().numpy()[agent, mode]
        draw_modes(canvas, np.stack([start[agent], ends], axis=1), probability[agent, mode])

    def _draw_log(self, canvas: Canvas, step: int, controlled: _Flags) -> None:
        if not 0 <= step < self._log.num_steps:
            return
        log = self._log.at(step)
        valid = log.valid[:, 0].numpy() & self._present & controlled
        shown = self._in_view(canvas, log.xy[:, 0].double().numpy(), valid)
        draw_ghosts(canvas, self._visible(shown, log, controlled))

    def _visible(
        self,
        shown: _Flags,
        now: Trajectory,
        controlled: _Flags,
        *,
        collided: Bool[Tensor, " agents"] | None = None,
        offroad: Bool[Tensor, " agents"] | None = None,
    ) -> VisibleAgents:
        nobody = np.zeros_like(shown)
        return VisibleAgents(
            xy=now.xy[:, 0].double().numpy()[shown],
            heading=now.heading[:, 0].double().numpy()[shown],
            size=self._size[shown],
            type=self._type[shown],
            is_sdc=self._is_sdc[shown],
            controlled=controlled[shown],
            collided=(nobody if collided is None else collided.cpu().numpy())[shown],
            offroad=(nobody if offroad is None else offroad.cpu().numpy())[shown],
        )


def render_state(
    state: SimState,
    *,
    size: int = 800,
    metres: float | int | None = None,
    follow: Follow = "scene",
    legend: bool = False,
    title: str = "",
    collided: Bool[Tensor, " agents"] | None = None,
    offroad: Bool[Tensor, " agents"] | None = None,
    modes: PredictedModes | None = None,
) -> Frame:
    """Draws one state from above. For many states of a world, keep a `BirdsEyeRenderer`.

    The arguments are those of `BirdsEyeRenderer` and of its `render`.

    Example:
        >>> import torch
        >>> from catk_sim.datasets import open_scenarios
        >>> from catk_sim.dynamics import StateDynamics
        >>> from catk_sim.simulator import Simulator
        >>> scenario = next(iter(open_scenarios("synthetic"))).to(torch.float32)
        >>> state = Simulator(StateDynamics()).reset(scenario, scenario.agents.is_sdc)
        >>> render_state(state, size=400, follow="sdc").shape
        (400, 400, 3)
    """
    renderer = BirdsEyeRenderer(
        state.scenario, size=size, metres=metres, follow=follow, legend=legend, title=title
    )
    return renderer.render(state, collided=collided, offroad=offroad, modes=modes)
