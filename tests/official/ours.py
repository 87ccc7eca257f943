"""Our answers to a case, in the form of the official package's."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from catk_sim.metrics.sim_agents.__main__ import ScoreConfig, find_scenario, read_rollouts, score
from catk_sim.metrics.sim_agents.config import sim_agents_config
from catk_sim.metrics.sim_agents.metric import SimAgentsMetric


def our_metrics(folder: Path, version: str) -> dict[str, Any]:
    """Scores a case as the command does."""
    record = score(
        ScoreConfig(
            scenarios=str(folder / "scenario.tfrecord"),
            rollouts=folder / "rollouts.npz",
            version=version,
        )
    )
    return {"scenario": record["scenario"], "bucketed": record["bucketed"]}


def our_features(folder: Path, version: str) -> dict[str, np.ndarray]:
    """Computes the features of a case, named as the oracle names them."""
    metric = SimAgentsMetric(version)
    prepared = metric.prepare(find_scenario(str(folder / "scenario.tfrecord"), None))
    rollouts = read_rollouts(folder / "rollouts.npz", prepared.scene, sim_agents_config(version))
    simulated = metric.features(prepared, rollouts)
    arrays = {
        f"{prefix}/{field.name}": getattr(features, field.name).numpy()
        for prefix, features in (("log", prepared.log), ("simulated", simulated))
        for field in fields(features)
    }
    log = {name: value[None] for name, value in arrays.items() if name.startswith("log/")}
    return arrays | log | {"log/valid": prepared.scored.valid.numpy()[None]}
