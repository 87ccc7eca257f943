"""Films of the scenarios that planners did worst in."""

from dataclasses import dataclass
from pathlib import Path

import torch

from catk_sim.datatypes import Rollout
from catk_sim.metrics.collision import collision_indication
from catk_sim.metrics.offroad import vehicles_off_road
from catk_sim.visualization import BirdsEyeRenderer, rollout_frames, write_video

Record = dict[str, str | float]
"""What was measured of a scenario, by name."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Film:
    """An episode that may be worth a look.

    Attributes:
        score: How well the scenario was driven.
        episode: What was driven, on the CPU.
        title: What to write into it.
    """

    score: float
    episode: Rollout
    title: str

    def write(self, path: Path) -> None:
        """Writes it as a film."""
        scenario, simulated = self.episode.final.scenario, self.episode.simulated
        frames = rollout_frames(
            self.episode,
            BirdsEyeRenderer(scenario, size=600, follow="sdc", title=self.title),
            collided=collision_indication(simulated, scenario).value > 0,
            offroad=vehicles_off_road(simulated, scenario),
        )
        write_video(frames, path)


class Films:
    """The films of the worst scenarios so far: few of them, so that memory does not grow.

    Args:
        count: How many to keep of each planner.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: dict[str, dict[str, Film]] = {}

    def offer(self, planner: str, record: Record, rollout: Rollout, place: int) -> None:
        """Keeps an episode of a batch, if its scenario is among the worst."""
        score = float(record["score"])
        if not self._count or score != score:
            return
        kept = self._kept.setdefault(planner, {})
        if len(kept) == self._count:
            best = max(kept, key=lambda one: kept[one].score)
            if kept[best].score <= score:
                return
            del kept[best]
        kept[str(record["scenario_id"])] = Film(
            score=score,
            # A copy, so that the batch can go.
            episode=rollout.select(place).to("cpu").map(torch.clone),
            title=f"{planner}  score {score:.2f}",
        )

    def of(self, planner: str) -> dict[str, Film]:
        """Returns those of a planner, by the ids of their scenarios."""
        return self._kept.get(planner, {})
