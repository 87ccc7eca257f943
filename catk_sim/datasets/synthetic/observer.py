"""What the self-driving car's recorder makes of a scene."""

from dataclasses import dataclass

import numpy as np

from catk_sim.constants import CURRENT_STEP, NUM_STEPS, STEP_SECONDS
from catk_sim.datasets.centering import to_scenario
from catk_sim.datasets.recording import RecordedAgents, RecordedLights, Recording
from catk_sim.datasets.synthetic.road_network import Movement
from catk_sim.datasets.synthetic.scene import Scene
from catk_sim.datasets.synthetic.sensing import observe, tracker_noise
from catk_sim.datasets.synthetic.signals import CAUTION, GO, STOP, SignalPlan
from catk_sim.datasets.synthetic.streams import Stream, random_stream
from catk_sim.datasets.synthetic.survey import (
    NUMBER_OF_FIRST_FEATURE,
    Terrain,
    draw_terrain,
    quantise,
    survey,
)
from catk_sim.datasets.synthetic.tracks import Tracks
from catk_sim.datatypes import AgentType, Scenario, TrafficLightState

MAX_TO_PREDICT = 8
"""As many agents at most are in `tracks_to_predict`."""


@dataclass(frozen=True)
class Observer:
    """Records scenes as their sdc sees them.

    Attributes:
        seed: The scenario's seed.
        attempt: Which scene of that seed it is.
        name: The scenario's id.
    """

    seed: int
    attempt: int
    name: str

    def stream(self, purpose: Stream, number: int = 0) -> np.random.Generator:
        """Returns random numbers for a purpose."""
        return random_stream(self.seed, purpose, self.attempt, number)

    def observe(self, scene: Scene, tracks: Tracks, sdc_id: int, suffix: str = "") -> Scenario:
        """Makes the scenario of what happened."""
        sdc = int(np.flatnonzero(tracks.agent_id == sdc_id)[0])
        valid = observe(tracks, sdc, self.stream(Stream.SENSOR))
        seen = np.flatnonzero(valid.any(1))
        tracks, valid, sdc = tracks.take(seen), valid[seen], int(np.searchsorted(seen, sdc))
        terrain = draw_terrain(self.stream(Stream.PLACE))
        noise = [
            tracker_noise(NUM_STEPS, self.stream(Stream.NOISE, int(number)))
            for number in tracks.agent_id
        ]
        recording = Recording(
            scenario_id=self.name + suffix,
            timestamps=np.arange(NUM_STEPS) * STEP_SECONDS,
            agents=RecordedAgents(
                agent_id=tracks.agent_id,
                type=tracks.type,
                # Nothing is told of who is not seen.
                states=np.where(
                    valid[..., None], _states(tracks, sdc, np.stack(noise), terrain), 0.0
                ),
                valid=valid,
                sdc=sdc,
                to_predict=dict.fromkeys(_to_predict(tracks, valid, sdc), 0),
                of_interest=[],
            ),
            roadgraph=survey(scene.network, terrain),
            lights=_lights(scene, terrain),
        )
        return to_scenario(recording, self.name + suffix)


def _states(tracks: Tracks, sdc: int, noise: np.ndarray, terrain: Terrain) -> np.ndarray:
    """Lays out `STATE_FIELDS` as a tracker measures them."""
    noise[sdc] = 0.0
    # A tracker knows when a car stands.
    noise *= np.minimum(tracks.speed / 1.5, 1.0)[..., None]
    pose = tracks.pose + noise
    xyz = terrain.locate(pose[..., :2])
    xyz[..., 2] += tracks.size[:, None, 2] / 2
    xyz = quantise(xyz)
    size = np.repeat(tracks.size[:, None], NUM_STEPS, axis=1)
    heading = (pose[..., 2] + np.pi) % (2 * np.pi) - np.pi
    velocity = _velocity(xyz[..., :2], heading, tracks)
    # The proto holds these in float32.
    rest = np.concatenate([size, heading[..., None], velocity], axis=-1).astype(np.float32)
    return np.concatenate([xyz, rest.astype(np.float64)], axis=-1)


def _velocity(xy: np.ndarray, heading: np.ndarray, tracks: Tracks) -> np.ndarray:
    """Derives velocities from the last two positions, as WOMD does."""
    velocity = tracks.speed[..., None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    both = tracks.present[:, 1:] & tracks.present[:, :-1]
    moved = (xy[:, 1:] - xy[:, :-1]) / STEP_SECONDS
    velocity[:, 1:] = np.where(both[..., None], moved, velocity[:, 1:])
    return velocity


def _to_predict(tracks: Tracks, valid: np.ndarray, sdc: int) -> list[int]:
    """Picks the agents nearest to the sdc that move and are seen to the end; rare kinds first."""
    place = tracks.pose[:, CURRENT_STEP, :2]
    away = np.hypot(*(place - place[sdc]).T)
    travelled = np.hypot(*(tracks.pose[:, -1, :2] - place).T)
    fits = valid[:, CURRENT_STEP] & valid[:, -1] & (travelled > 2.0)
    fits[sdc] = False
    order = np.argsort(away - 20.0 * (tracks.type != AgentType.VEHICLE), kind="stable")
    return [int(row) for row in order if fits[row]][:MAX_TO_PREDICT]


_PLAIN = {
    GO: TrafficLightState.GO,
    CAUTION: TrafficLightState.CAUTION,
    STOP: TrafficLightState.STOP,
}
_ARROW = {
    GO: TrafficLightState.ARROW_GO,
    CAUTION: TrafficLightState.ARROW_CAUTION,
    STOP: TrafficLightState.ARROW_STOP,
}


def _lights(scene: Scene, terrain: Terrain) -> RecordedLights:
    """Lists the light of every lane through a signalised junction, step by step."""
    plans = scene.traffic.plans
    lanes = [number for number, lane in enumerate(scene.network.lanes) if lane.junction in plans]
    states = [
        _light_states(plans[scene.network.lanes[number].junction], scene, number)
        for number in lanes
    ]
    stops = np.array([scene.network.lanes[number].xy[0] for number in lanes]).reshape(-1, 2)
    return RecordedLights(
        step=np.repeat(np.arange(NUM_STEPS), len(lanes)),
        lane_id=np.tile(np.array(lanes, dtype=np.int64) + NUMBER_OF_FIRST_FEATURE, NUM_STEPS),
        state=np.array(states, dtype=np.int64).reshape(len(lanes), NUM_STEPS).T.ravel(),
        stop_xyz=np.tile(quantise(terrain.locate(stops)), (NUM_STEPS, 1)),
    )


def _light_states(plan: SignalPlan, scene: Scene, number: int) -> list[int]:
    lane = scene.network.lanes[number]
    words = _ARROW if plan.has_arrows and lane.movement is Movement.LEFT else _PLAIN
    times = scene.start_time + STEP_SECONDS * np.arange(NUM_STEPS)
    return [int(words[int(plan.lights(time)[lane.arm, lane.movement])]) for time in times]
