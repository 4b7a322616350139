"""Arguments of `fit` turned into iterations and epochs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasrl.training.epochs import plan_epochs


@given(st.integers(1, 50), st.integers(1, 3000), st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_there_are_as_many_epochs_as_asked_for(iteration_steps, steps, epochs):
    total = -(-steps // iteration_steps)
    if total < epochs:
        with pytest.raises(ValueError, match=f"epochs={total} or fewer"):
            plan_epochs(iteration_steps, steps, epochs, None)
        return
    plan = plan_epochs(iteration_steps, steps, epochs, None)
    assert plan.epochs == epochs
    iterations = [plan.iterations(epoch) for epoch in range(epochs)]
    assert sum(iterations) == plan.total_iterations == total
    assert max(iterations) == plan.iterations_per_epoch <= min(iterations) + 1
    assert plan.done(epochs) == total


@given(st.integers(1, 50), st.integers(1, 3000), st.integers(1, 500))
@settings(max_examples=100, deadline=None)
def test_epochs_of_a_length_are_whole_but_for_the_last(steps, total, length):
    plan = plan_epochs(steps, total, None, length)
    iterations = [plan.iterations(epoch) for epoch in range(plan.epochs)]
    assert sum(iterations) == plan.total_iterations
    assert set(iterations[:-1]) <= {plan.iterations_per_epoch}
    assert 1 <= iterations[-1] <= plan.iterations_per_epoch
