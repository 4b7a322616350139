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


def run(plan, lengths, initial_epoch=0):
    """Goes through a plan as the loop does; returns the iterations of each epoch."""
    return list(run_by_index(plan, lengths, initial_epoch).values())


def run_by_index(plan, lengths, initial_epoch=0):
    """The same by the index with which each epoch ends."""
    plan.begin(initial_epoch)
    lengths, epochs, shown, indices = iter(lengths), [], [], []
    epoch = initial_epoch
    while epoch < plan.epochs:
        epochs.append([])
        while plan.has_more(epoch, len(epochs[-1])):
            assert 0.0 <= plan.progress(epoch, len(epochs[-1])) < 1.0
            epochs[-1].append(next(lengths))
            plan.add(epoch, epochs[-1][-1])
            shown.append(plan.steps_until(epoch, len(epochs[-1])))
        indices.append(plan.ended(epoch))
        epoch = indices[-1] + 1
        if plan.is_over:
            break
    assert shown == sorted(shown) and shown[-1] == plan.steps
    assert indices == sorted(set(indices)) and indices[-1] < plan.epochs
    return dict(zip(indices, epochs, strict=True))


_LENGTHS = st.lists(st.integers(1, 40), min_size=400, max_size=400)


@given(_LENGTHS, st.integers(1, 400), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_iterations_of_any_length_end_with_the_steps(lengths, steps, per_epoch):
    epochs = run_by_index(plan_epochs(None, steps, None, per_epoch), lengths)
    done = began_as = 0
    for index, iterations in epochs.items():
        # An epoch has no more iterations than it needs, but one.
        target = min((began_as + 1) * per_epoch, steps)
        assert len(iterations) == 1 or done + sum(iterations[:-1]) < target
        done += sum(iterations)
        assert done >= target
        began_as = index + 1
    assert steps <= done < steps + iterations[-1]


@given(_LENGTHS, st.integers(1, 400), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_who_goes_on_from_the_index_of_an_epoch_knows_what_is_done(
    lengths, steps, per_epoch
):
    """Also where iterations are longer than epochs: within one epoch of the truth."""
    plan = plan_epochs(None, steps, None, per_epoch)
    done = 0
    for index, iterations in run_by_index(plan, lengths).items():
        done += sum(iterations)
        later = plan_epochs(None, steps, None, per_epoch)
        later.begin(index + 1)
        known = later.steps_until(index + 1, 0)
        assert min(done, steps) - per_epoch < known <= done
    assert later.is_over


@given(_LENGTHS, st.integers(1, 12), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_epochs_of_iterations_of_any_length_are_as_many(lengths, count, per_epoch):
    epochs = run(plan_epochs(None, None, count, per_epoch), lengths)
    assert len(epochs) == count
    for iterations in epochs:
        assert sum(iterations[:-1]) < per_epoch <= sum(iterations)


def test_iterations_of_any_length_share_out_steps_and_go_on_later():
    epochs = run(plan_epochs(None, 100, 4, None), [10] * 20)
    assert [len(iterations) for iterations in epochs] == [3, 2, 3, 2]
    assert run(plan_epochs(None, 100, 4, None), [60] * 9) == [[60], [60]]
    assert run(plan_epochs(None, 100, 4, None), [10] * 20, 3) == [[10, 10, 10]]
    epochs = run_by_index(plan_epochs(None, 4500, None, 100), [900] * 9)
    assert list(epochs) == [8, 17, 26, 35, 44]
    assert len(run(plan_epochs(None, 4500, None, 100), [900] * 9, 9)) == 4
    with pytest.raises(ValueError, match="neither steps nor epochs"):
        plan_epochs(None, None, None, None)
