import torch

from catk_sim.datatypes import AgentMetadata, AgentType
from tests.scenes import agents_of


def test_the_sdc_is_found_in_each_scenario() -> None:
    agents = agents_of([AgentType.VEHICLE] * 3)
    rows = torch.tensor([[False, True, False], [False, False, True], [False, False, False]])
    batch = AgentMetadata.stack([agents.replace(is_sdc=row) for row in rows])
    assert batch.sdc_index.tolist() == [1, 2, 0]
    assert int(batch.select(1).sdc_index) == 2
