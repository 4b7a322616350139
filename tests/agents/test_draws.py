"""Random numbers in updates: none is drawn twice, whatever draws them and wherever.

Networks are evaluated with the values of others: targets, and critics that must not
learn. What moves a random generator there must reach it all the same.
"""

import collections

import daily
import keras
import numpy as np
import pytest
import tiny
from by_definition import BOX, DISCRETE, build, transitions

import kerasrl
from kerasrl.training import compiled, minibatches


@keras.saving.register_keras_serializable("test_draws")
class Draws(keras.layers.Layer):
    """Noise at every call, from a generator of its own and from that of Keras."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(5)

    def call(self, inputs):
        shape = keras.ops.shape(inputs)
        noise = keras.random.normal(shape, seed=self.generator)
        return inputs + noise + keras.random.uniform(shape)


def trunk():
    layers = keras.layers
    return keras.Sequential([layers.Dense(4), layers.Dropout(0.5), Draws()])


class Counter:
    """Counts in every compiled call the draws, and how far each generator moved."""

    def __init__(self, monkeypatch):
        self.generators = {}
        self.calls = []
        self.inside = False
        self._outside_steps = collections.Counter()
        self._in_steps = collections.Counter()
        self._ordered = {}
        next_seed = keras.random.SeedGenerator.next
        run, call = compiled.CompiledUpdate._run, compiled.CompiledUpdate.__call__
        repeat = minibatches.repeat

        def count_draw(generator, ordered=True):
            self.generators[id(generator)] = generator
            self._ordered[id(generator)] = ordered
            counts = self._in_steps if self.inside else self._outside_steps
            counts[id(generator)] += 1
            return next_seed(generator, ordered)

        def count_from_zero(update, *args):
            self._outside_steps.clear(), self._in_steps.clear()
            return run(update, *args)

        def in_steps(count, step, *args, **kwargs):
            def counted(number):
                self.inside = True
                result = step(number)
                self.inside = False
                return result

            return repeat(count, counted, *args, **kwargs)

        def compare(update, *args):
            update.trace(*args)
            before = self._states()
            logs = call(update, *args)
            steps = int(logs.get("gradient_steps", 0))
            draws = {
                key: self._outside_steps[key] + steps * self._in_steps[key]
                for key in self.generators
            }
            expected = {
                key: self._after(before[key], draws[key], self._ordered[key])
                for key in self.generators
            }
            self.calls.append((draws, expected, self._states()))
            return logs

        monkeypatch.setattr(keras.random.SeedGenerator, "next", count_draw)
        monkeypatch.setattr(compiled.CompiledUpdate, "_run", count_from_zero)
        monkeypatch.setattr(compiled.CompiledUpdate, "__call__", compare)
        monkeypatch.setattr(minibatches, "repeat", in_steps)

    def _states(self):
        return {key: int(g.state[1]) for key, g in self.generators.items()}

    def _after(self, state, draws, ordered):
        """As `keras.random.SeedGenerator` says; that of Keras itself jumps about."""
        for _ in range(draws):
            state = state + 1 if ordered else (state + 1) * 5387 % 933199
        return state


DRAWING = {
    **{name: {} for name in tiny.AGENTS},
    # Both branches of a delayed policy are traced, and only one runs.
    "TD3": {"policy_delay": 1},
    "TD3_recurrent": {"policy_delay": 1},
    "TD3BC": {"policy_delay": 1},
    "R2D2": {"policy": {"noisy": True}},
}


#: The others draw in the same functions as these.
DAILY = {"PPO", "A3C", "IMPALA", "PPO_recurrent", "Rainbow", "R2D2", "TD3", "SAC"}


@pytest.mark.parametrize("name", daily.among(DRAWING, DAILY))
def test_every_draw_moves_its_generator(name, monkeypatch):
    counter = Counter(monkeypatch)
    arguments = dict(DRAWING[name])
    policy = {"trunk": trunk(), **arguments.pop("policy", {})}
    if name in tiny.OFF_POLICY:
        arguments.update(updates_per_call=3, learning_starts=16)
    agent = tiny.make(name, policy=policy, **arguments)
    agent.fit(tiny.env_of(name), steps=160, num_envs=2, verbose=0)
    assert len(counter.calls) > 1
    for _, expected, moved in counter.calls:
        assert expected == moved
    # Dropout, noise and Keras's own generator.
    assert sum(count > 0 for count in counter.calls[-1][0].values()) >= 3


SMALL = {"hidden_units": (8,)}
#: All keep the errors of every step.
LEARNING = {
    "TD3": lambda: kerasrl.TD3(SMALL, prioritized=True, seed=1),
    "SAC": lambda: kerasrl.SAC(SMALL, prioritized=True, seed=1),
    "Rainbow": lambda: kerasrl.DQN.rainbow(policy=SMALL, seed=1),
}


@pytest.mark.parametrize(
    ("name", "jit_compile"),
    [
        *((name, False) for name in LEARNING),
        ("TD3", True),
        pytest.param("SAC", True, marks=pytest.mark.slow),
        pytest.param("Rainbow", True, marks=pytest.mark.slow),
    ],
)
def test_the_same_batch_has_other_errors_in_every_step(name, jit_compile):
    """Nothing is learnt and no target follows: the draws alone make the difference."""
    agent = LEARNING[name]()
    space = DISCRETE if name == "Rainbow" else BOX
    build(agent, space)
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=jit_compile)
    batch = transitions(space)
    batches = {key: np.stack([value] * 3) for key, value in batch.items()}
    due = agent.due(np.arange(3))
    due["update_target"] = np.zeros(3, bool)
    update = compiled.CompiledUpdate(agent, agent._updates)
    errors = []
    for _ in range(2):
        update(batches, agent.scheduled_values(), due)
        errors.extend(update.outputs.numpy())
    assert len(np.unique(np.round(errors, 5), axis=0)) == 6


def test_what_fails_while_an_update_is_made_leaves_the_generator_alone(monkeypatch):
    agent = tiny.make("DQN")
    agent.compile(run_eagerly=True)
    rng = agent.rng

    def fail(num_batches):
        raise KeyboardInterrupt

    monkeypatch.setattr(agent, "sample", fail)
    with pytest.raises(KeyboardInterrupt):
        agent.fit("CartPole-v1", steps=80, num_envs=2, verbose=0)
    assert agent.rng is rng
