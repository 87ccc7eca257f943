from catk_sim.dynamics import StateDynamics
from catk_sim.simulator import Simulator
from tests.scenes import straight_road


def test_the_current_step_is_that_of_the_state_and_not_of_the_one_before() -> None:
    scenario = straight_road()
    state = Simulator(StateDynamics()).reset(scenario, scenario.agents.valid)
    assert state.current.xy.equal(state.history.xy[:, -1:])
    moved = state.replace(history=state.history.replace(xy=state.history.xy + 1))
    assert moved.current.xy.equal(state.current.xy + 1)
