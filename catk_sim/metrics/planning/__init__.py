"""How an ego drives: nuPlan's measures, and those of the CAT-K paper."""

from catk_sim.metrics.bootstrap import Estimate as Estimate
from catk_sim.metrics.bootstrap import estimate_ratios as estimate_ratios
from catk_sim.metrics.bootstrap import paired_differences as paired_differences
from catk_sim.metrics.bootstrap import summarize as summarize
from catk_sim.metrics.planning.driving import ProjectsOnRoute as ProjectsOnRoute
from catk_sim.metrics.planning.ego_metrics import EgoMetrics as EgoMetrics
from catk_sim.metrics.planning.ego_metrics import evaluate_ego as evaluate_ego
from catk_sim.metrics.planning.realism import ego_joint_scenes as ego_joint_scenes
from catk_sim.metrics.planning.realism import only_ego_evaluated as only_ego_evaluated
from catk_sim.metrics.records import worst_scenarios as worst_scenarios
from catk_sim.metrics.records import write_records as write_records
