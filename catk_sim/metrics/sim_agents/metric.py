"""The Sim Agents metric, from scenarios and rollouts to scores."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from catk_sim.constants import FUTURE_STEPS, HISTORY_STEPS, NUM_STEPS
from catk_sim.datatypes import AgentType, Scenario, TensorTree
from catk_sim.geometry.roots import rounded_sqrt
from catk_sim.metrics.box_trajectory import BoxTrajectory, take_agents
from catk_sim.metrics.kinematics import kinematic_validity, kinematics, planar_speed
from catk_sim.metrics.object_distance import distance_to_nearest_object
from catk_sim.metrics.offroad import box_distance_to_road_edge
from catk_sim.metrics.road_edges import EdgeRule, RoadEdges
from catk_sim.metrics.sim_agents.config import SimAgentsConfig, sim_agents_config
from catk_sim.metrics.sim_agents.features import ScoredAgents, SimAgentsFeatures
from catk_sim.metrics.sim_agents.joint_scenes import JointScenes
from catk_sim.metrics.sim_agents.realism import LeaveOneOut, SimAgentsMetrics, leave_one_out, score
from catk_sim.metrics.sim_agents.scene import EvaluatedScene, UnscorableError, in_file_frame
from catk_sim.metrics.time_to_collision import time_to_collision
from catk_sim.metrics.traffic_lights import SignalledLanes, traffic_light_violation

DEFAULT_MAX_MEMORY = 256 << 20

BYTES_PER_PAIR = 64
"""Memory for each pair of an evaluated and another agent at a step: measured, rounded up."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PreparedScene(TensorTree):
    """What the metric needs of a scenario, or of a padded batch, whoever is evaluated on it.

    Attributes:
        rules: What was measured by. Only a metric of the same rules takes it.
        scene: Its agents.
        edges: Its road edges.
        lanes: Its lanes that have a traffic light.
        log: The features of what was logged.
        scored: Which agents and steps are scored.
    """

    rules: SimAgentsConfig
    scene: EvaluatedScene
    edges: RoadEdges
    lanes: SignalledLanes
    log: SimAgentsFeatures
    scored: ScoredAgents


class SimAgentsMetric:
    """The realism of simulated traffic, with the numbers of Waymo's evaluation.

    Montali et al., "The Waymo Open Sim Agents Challenge", arXiv:2305.12032. In float32, like
    Waymo's. Scores agree with the official ones to 1e-5.

    Args:
        rules: A version, one of `VERSIONS`, or rules of one's own.
        max_memory: How much memory (bytes) the features may take while they are computed, roughly;
            one rollout of one scenario is the least. The figures do not depend on it.

    Example:
        >>> import torch
        >>> from catk_sim.datasets import open_scenarios
        >>> from catk_sim.metrics.sim_agents import JointScenes
        >>> from catk_sim.rollout import rollout
        >>> from policies.registry import make_policy
        >>> scenario = next(iter(open_scenarios("synthetic")))
        >>> policy = make_policy("constant_velocity")
        >>> driven = rollout(policy, scenario.to(torch.float32), num_rollouts=2)
        >>> metric = SimAgentsMetric("2025")
        >>> prepared = metric.prepare(scenario)  # In float64, as it was read.
        >>> metrics = metric(prepared, JointScenes.from_rollout(driven.simulated, prepared.scene))
        >>> 0.2 < float(metrics.metametric) < 0.8
        True
    """

    def __init__(
        self, rules: str | SimAgentsConfig = "2025", *, max_memory: int = DEFAULT_MAX_MEMORY
    ) -> None:
        if max_memory <= 0:
            raise ValueError(f"max_memory: wanted a positive number of bytes, got {max_memory}")
        self.config = sim_agents_config(rules) if isinstance(rules, str) else rules
        self.max_memory = max_memory

    def prepare(self, scenario: Scenario) -> PreparedScene:
        """Computes what depends on the log and the map alone. Worth keeping.

        Args:
            scenario: As read from a file, in float64, or a padded batch of such.

        Raises:
            UnscorableError: The metric is not defined for it: see `EvaluatedScene.from_scenario`;
                or the map has no road edge.
        """
        config = self.config
        scene = EvaluatedScene.from_scenario(scenario, evaluate_all=config.whole_scene)
        placed = in_file_frame(scenario)
        edges = RoadEdges.from_roadgraph(
            placed.roadgraph, EdgeRule.WOSAC_2023 if config.planar_road_edges else EdgeRule.WOSAC
        )
        _check_road_edges(edges, scene)
        lanes = SignalledLanes.from_map(placed.roadgraph, placed.traffic_lights)
        return PreparedScene(
            rules=config,
            scene=scene,
            edges=edges,
            lanes=lanes,
            log=self._in_chunks(self._log_boxes(scene), scene, edges, lanes).select(0),
            scored=self._scored(scene),
        )

    def features(
        self, prepared: PreparedScene, simulated: JointScenes | BoxTrajectory
    ) -> SimAgentsFeatures:
        """Computes the features of rollouts, of shape (rollouts, *batch, evaluated agents, steps).

        Args:
            prepared: What was simulated.
            simulated: Rollouts of its sim agents. For scenario generation: the boxes of all 91
                steps.

        Raises:
            ValueError: The shape is wrong, or a number is not finite.
        """
        if prepared.rules != self.config:
            raise ValueError(
                f"wanted a scene prepared by version {self.config.version}, got one prepared by "
                f"{prepared.rules.version}"
            )
        boxes = self._checked(prepared.scene, simulated)
        return self._in_chunks(boxes, prepared.scene, prepared.edges, prepared.lanes)

    def __call__(
        self, prepared: PreparedScene, simulated: JointScenes | BoxTrajectory
    ) -> SimAgentsMetrics:
        """Scores rollouts. Arguments and errors as for `features`."""
        return self.score(prepared, self.features(prepared, simulated))

    def score(self, prepared: PreparedScene, features: SimAgentsFeatures) -> SimAgentsMetrics:
        """Scores rollouts whose features were computed before."""
        return score(features, prepared.log, prepared.scored, config=self.config)

    def leave_one_out(
        self, prepared: PreparedScene, simulated: JointScenes | BoxTrajectory
    ) -> LeaveOneOut:
        """Measures what each rollout adds to the realism, as a reward for it.

        Arguments and errors as for `features`; and there must be at least two rollouts.
        """
        features = self.features(prepared, simulated)
        return leave_one_out(features, prepared.log, prepared.scored, config=self.config)

    def _in_chunks(
        self, boxes: BoxTrajectory, scene: EvaluatedScene, edges: RoadEdges, lanes: SignalledLanes
    ) -> SimAgentsFeatures:
        """Computes features of as many rollouts and scenarios at a time as the memory allows."""
        *batch, evaluated = scene.evaluated.shape
        pairs = evaluated * scene.num_agents * NUM_STEPS
        scenes_at_once = max(1, self.max_memory // (pairs * BYTES_PER_PAIR))
        if not batch:
            return self._in_parts(boxes, scene, edges, lanes, scenes_at_once)
        if scenes_at_once >= batch[0]:
            return self._in_parts(boxes, scene, edges, lanes, scenes_at_once // batch[0])
        # One rollout of every scenario at once is too much.
        parts = []
        for start in range(0, batch[0], scenes_at_once):
            some = slice(start, start + scenes_at_once)
            parts.append(
                self._in_parts(
                    boxes.map(lambda tensor, some=some: tensor[:, some]),
                    scene.map(lambda tensor, some=some: tensor[some]),
                    edges.map(lambda tensor, some=some: tensor[some]),
                    lanes.map(lambda tensor, some=some: tensor[some]),
                    1,
                )
            )
        return _cat(parts, dim=1)

    def _in_parts(
        self,
        boxes: BoxTrajectory,
        scene: EvaluatedScene,
        edges: RoadEdges,
        lanes: SignalledLanes,
        size: int,
    ) -> SimAgentsFeatures:
        """Computes the features of so many rollouts at a time."""
        parts = [
            self._features(
                boxes.map(lambda tensor, start=start: tensor[start : start + size]),
                scene,
                edges,
                lanes,
            )
            for start in range(0, boxes.batch_size, size)
        ]
        return _cat(parts, dim=0)

    def _features(
        self, boxes: BoxTrajectory, scene: EvaluatedScene, edges: RoadEdges, lanes: SignalledLanes
    ) -> SimAgentsFeatures:
        config, evaluated = self.config, scene.evaluated
        first = 0 if config.whole_scene else HISTORY_STEPS
        # An acceleration is told from two steps before, a speed and a crossing from one.
        two_before, before = max(0, first - 2), max(0, first - 1)
        future = boxes.slice(first)
        ego = boxes.take(evaluated)
        motion = kinematics(ego.slice(two_before), differences=config.differences)
        motion = motion.map(lambda tensor: tensor[..., first - two_before :])
        speed = planar_speed(boxes.slice(before), differences=config.differences)
        gap = distance_to_nearest_object(future, evaluated, rounding=config.corner_rounding)
        counted = future.take(evaluated)
        # Whoever fills a batch up is the first agent, whom nobody needs to measure twice.
        counted = counted.replace(valid=counted.valid & scene.is_evaluated[..., None])
        beyond = box_distance_to_road_edge(counted, edges)
        violation = None
        if "traffic_light_violation" in config.features:
            violation = traffic_light_violation(
                boxes.slice(before), lanes.slice(before), evaluated
            )[..., first - before :]
        return SimAgentsFeatures(
            linear_speed=motion.linear_speed,
            linear_acceleration=motion.linear_acceleration,
            angular_speed=motion.angular_speed,
            angular_acceleration=motion.angular_acceleration,
            distance_to_nearest_object=gap,
            collision_per_step=gap < 0,
            time_to_collision=time_to_collision(future, speed[..., first - before :], evaluated),
            distance_to_road_edge=beyond,
            offroad_per_step=beyond > 0,
            traffic_light_violation_per_step=violation,
            average_displacement_error=self._displacement(ego, scene),
        )

    def _displacement(
        self, ego: BoxTrajectory, scene: EvaluatedScene
    ) -> Float[Tensor, "rollouts *batch evaluated"]:
        if self.config.whole_scene:
            return torch.zeros_like(ego.x[..., 0])
        log = scene.logged.take(scene.evaluated)
        square = (ego.x - log.x).square() + (ego.y - log.y).square() + (ego.z - log.z).square()
        # The history counts as well: its errors are zero.
        total = torch.where(log.valid, rounded_sqrt(square), 0.0).sum(dim=-1)
        return total / log.valid.sum(dim=-1)

    def _scored(self, scene: EvaluatedScene) -> ScoredAgents:
        first = 0 if self.config.whole_scene else HISTORY_STEPS
        valid = take_agents(scene.logged.valid, scene.evaluated)[..., first:]
        valid = valid & scene.is_evaluated[..., None]
        speed, acceleration = kinematic_validity(valid, differences=self.config.differences)
        return ScoredAgents(
            scenario_id=scene.scenario_id,
            valid=valid,
            speed_valid=speed,
            acceleration_valid=acceleration,
            is_vehicle=scene.object_type.gather(-1, scene.evaluated) == AgentType.VEHICLE,
            counted=scene.is_evaluated,
        )

    def _log_boxes(self, scene: EvaluatedScene) -> BoxTrajectory:
        if self.config.whole_scene:
            # Scenario generation takes all agents to be there at all steps, and so the log's zeros
            # for boxes.
            return scene.logged.replace(valid=scene.always_valid()).repeat(1)
        log = JointScenes.from_log(scene).boxes(scene)
        return log.replace(valid=scene.logged.valid[None])

    def _checked(
        self, scene: EvaluatedScene, simulated: JointScenes | BoxTrajectory
    ) -> BoxTrajectory:
        """Returns rollouts as boxes of all steps."""
        if isinstance(simulated, JointScenes) == self.config.whole_scene:
            wanted = "a BoxTrajectory" if self.config.whole_scene else "JointScenes"
            raise ValueError(
                f"version {self.config.version} scores {wanted}, got a {type(simulated).__name__}"
            )
        num_steps = NUM_STEPS if self.config.whole_scene else FUTURE_STEPS
        if simulated.x.dtype != torch.float32:
            raise ValueError(f"wanted rollouts in float32, got {simulated.x.dtype}")
        shape, wanted = tuple(simulated.x.shape), (*scene.object_id.shape, num_steps)
        if shape[1:] != wanted or not shape[0]:
            raise ValueError(
                f"wanted at least one rollout of shape (*batch, agents, steps) = {wanted}, got "
                f"{shape}"
            )
        boxes = simulated.boxes(scene) if isinstance(simulated, JointScenes) else simulated
        names = ("x", "y", "z", "heading", "length", "width", "height")
        is_finite = [getattr(boxes, name).isfinite().all(dim=-1).all(dim=0) for name in names]
        bad = ~torch.stack(is_finite).all(dim=0) & scene.is_sim_agent
        if bad.any():
            raise ValueError(
                f"agents {scene.object_id[bad].tolist()} have states that are not finite"
            )
        return boxes.replace(valid=scene.always_valid().expand_as(boxes.x))


def _check_road_edges(edges: RoadEdges, scene: EvaluatedScene) -> None:
    for scenario_id, is_empty in zip(
        scene.scenario_id, edges.is_empty.flatten().tolist(), strict=True
    ):
        if is_empty:
            raise UnscorableError(f"scenario {scenario_id}: the map has no road edge")


def _cat(parts: list[SimAgentsFeatures], dim: int) -> SimAgentsFeatures:
    """Joins features along a dimension of the batch."""
    joined = {}
    for field in fields(SimAgentsFeatures):
        values = [getattr(part, field.name) for part in parts]
        joined[field.name] = None if values[0] is None else torch.cat(values, dim=dim)
    return SimAgentsFeatures(**joined)
