"""One program for many sets of weights: the same as one after the other."""

import pickle

import gymnasium
import keras
import numpy as np
import optree
import pytest

import kerasrl
from kerasrl.actors import build_actor, population, verification
from kerasrl.actors.population import PopulationProgram, can_stack
from kerasrl.training import acting
from kerasrl.training.population import trained_positions

SMALL = {"hidden_units": (5,)}
POLICIES = {
    "discrete": ("CartPole-v1", SMALL, True),
    "linear": ("CartPole-v1", {"hidden_units": ()}, True),
    "normalized": ("Pendulum-v1", {**SMALL, "normalize_observations": True}, True),
    "lstm": ("CartPole-v1", {**SMALL, "cell": "lstm", "cell_units": 4}, True),
    # Its biases are two rows of one weight, which is cut in two first.
    "gru": ("CartPole-v1", {**SMALL, "cell": "gru", "cell_units": 4}, False),
}


class Wide(gymnasium.Env):
    """Observations of many numbers, and rewards that say all of an action."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (376,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 9))
        return self.np_random.uniform(-1, 1, 376).astype(np.float32), {}

    def step(self, action):
        self.left -= 1
        seen = self.np_random.uniform(-1, 1, 376).astype(np.float32)
        return seen, float(np.sum(action)), self.left == 0, False, {}


def made(name):
    """An actor, which weights rows have for themselves, and inputs that differ."""
    env_id, options, _ = POLICIES[name]
    agent = kerasrl.PG(options, seed=0)
    env = gymnasium.make(env_id)
    agent.build(env.observation_space, env.action_space)
    actor = agent.actor(deterministic=True)
    handles = [variable.value.handle for variable in agent.policy.trainable_variables]
    own = [place for place in actor.positions(handles) if place is not None]
    generator = np.random.default_rng(0)
    examples = acting.example_inputs(agent, "deterministic")
    return actor.program, own, verification.drawn_rows(examples, generator)


@pytest.mark.parametrize("name", POLICIES)
def test_rows_with_weights_of_their_own(name):
    program, own, inputs = made(name)
    is_stacked = can_stack(program, own, inputs)
    assert is_stacked == POLICIES[name][2]
    rows = optree.tree_map(lambda leaf: np.concatenate([leaf, leaf + 1]), inputs)
    size = len(optree.tree_leaves(rows)[0])
    together = PopulationProgram(program, own, size, is_stacked)
    together = pickle.loads(pickle.dumps(together))
    alone = PopulationProgram(program, own, size, False)
    vectors = np.random.default_rng(1).standard_normal((size, alone.vector_size))
    for row, vector in enumerate(vectors):
        together.write(row, vector)
        alone.write(row, vector)
    outputs = together.run(rows)
    for found, wanted in zip(
        *map(optree.tree_leaves, (outputs, alone.run(rows))), strict=True
    ):
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    # To the last bit, whatever the number of rows, and in whichever place.
    for count in (1, 2, size - 1):
        part = together.run(optree.tree_map(lambda x, n=count: x[:n], rows))
        optree.tree_map(
            lambda x, y, n=count: np.testing.assert_array_equal(x[:n], y), outputs, part
        )
    together.move(size - 1, 0)
    moved = together.run(optree.tree_map(lambda x: x[-1:], rows))
    optree.tree_map(
        lambda x, y: np.testing.assert_array_equal(x[-1:], y), outputs, moved
    )


def test_rows_that_share_a_wide_layer_do_not_depend_on_each_other():
    """Nor do runs on the number of environments: a product of whole matrices would."""
    keras.utils.set_random_seed(0)
    frozen = keras.layers.Dense(64, "tanh", trainable=False)
    trunk = keras.Sequential([frozen, keras.layers.Dense(5, "tanh")])
    agents = [kerasrl.ARS(trunk, num_pairs=3, seed=0) for _ in range(3)]
    weights = []
    for agent, num_envs in zip(agents, (1, 2, 7), strict=True):
        agent.compile(run_eagerly=True)
        agent.build(Wide.observation_space, Wide.action_space)
        if weights:
            agent.set_weights(weights[0][0])
        weights.append([agent.get_weights()])
        agent.fit(Wide, steps=40, num_envs=num_envs, verbose=0)
        weights[-1].append(agent.get_weights())
    for other in weights[1:]:
        for found, expected in zip(other[1], weights[0][1], strict=True):
            np.testing.assert_array_equal(found, expected)
    # The first matrix is that which all share.
    actor = agents[0].actor(deterministic=True)
    own = trained_positions(agents[0])
    inputs = verification.drawn_rows(
        acting.example_inputs(agents[0], "deterministic"), np.random.default_rng(0)
    )
    assert can_stack(actor.program, own, inputs) and len(own) < 6
    rows = optree.tree_map(lambda leaf: np.concatenate([leaf] * 2), inputs)
    size = len(rows["observations"])
    together = PopulationProgram(actor.program, own, size, True)
    whole = together.run(rows)["actions"]
    for count in (1, 2, 3, size - 1):
        part = together.run(optree.tree_map(lambda x, n=count: x[:n], rows))
        np.testing.assert_array_equal(part["actions"], whole[:count])


def test_what_all_share_is_shared():
    program, own, inputs = made("normalized")
    together = PopulationProgram(program, own, 2, True)
    assert len(own) < len(program.weights)
    weights = [np.full_like(weight, 4.0) for weight in program.weights]
    together.write(0, np.ones(together.vector_size))
    together.write(1, np.ones(together.vector_size))
    rows = optree.tree_map(lambda leaf: leaf[:2], inputs)
    before = together.run(rows)["actions"]
    together.share(weights)
    assert not np.allclose(before, together.run(rows)["actions"])


def test_a_product_that_was_rewritten_wrongly_is_not_used(monkeypatch):
    program, own, inputs = made("discrete")
    monkeypatch.setattr(
        population, "rowwise", lambda rows, matrices: rows @ matrices[0]
    )
    assert not can_stack(program, own, inputs)


def test_what_is_joined_only_to_be_split_is_not_computed():
    """Such as the deviation of actions, where the mean alone is taken."""
    from keras import ops

    unused = keras.Variable(np.ones(3, np.float32), name="unused")

    def act(inputs):
        x = inputs["x"]
        other = ops.broadcast_to(unused, ops.shape(x))
        return ops.split(ops.concatenate([2 * x, other], axis=-1), 2, axis=-1)[0]

    actor = build_actor(act, {"x": np.ones((1, 3), np.float32)}, backend="numpy")
    assert actor.program.weights == []
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(actor({"x": x}), 2 * x)
