"""Readers of recorded traffic: files to `Scenario`, and scenarios to padded batches."""

from catk_sim.datasets.batching import collate as collate
from catk_sim.datasets.batching import uncollate as uncollate
from catk_sim.datasets.bucketing import BucketBatchSampler as BucketBatchSampler
from catk_sim.datasets.errors import DataError as DataError
from catk_sim.datasets.scenario_dataset import ScenarioDataset as ScenarioDataset
from catk_sim.datasets.scenario_dataset import prepare_if_needed as prepare_if_needed
from catk_sim.datasets.schema import ScenarioSize as ScenarioSize
from catk_sim.datasets.sources import Source as Source
from catk_sim.datasets.sources import open_scenarios as open_scenarios
