"""Local scores of submissions."""

from pathlib import Path

from catk_sim.datasets.scenario_dataset import ScenarioDataset
from catk_sim.metrics.sim_agents import JointScenes, SimAgentsMetric, SimAgentsMetrics
from catk_sim.submission.reader import submitted_scenarios


def score_submission(
    path: str | Path, scenarios: ScenarioDataset, metric: SimAgentsMetric
) -> SimAgentsMetrics:
    """Scores a submission as the challenge does.

    Args:
        path: The submission. See `read_submission`.
        scenarios: What it is for, in float64 and with logged futures: not the test split.
        metric: The version that scores.

    Raises:
        DataError: See `submitted_scenarios`.
        ValueError: The rollouts of a scenario are not exactly its sim agents', a number is not
            finite, or the metric is not defined for a scenario.
    """
    scored = []
    for scenario, rollouts in submitted_scenarios(path, scenarios):
        prepared = metric.prepare(scenario)
        joint = JointScenes.from_arrays(
            rollouts.object_id,
            rollouts.x,
            rollouts.y,
            rollouts.z,
            rollouts.heading,
            prepared.scene,
        )
        scored.append(metric(prepared, joint))
    return SimAgentsMetrics.stack(scored)
