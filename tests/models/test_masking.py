"""Logits and values of actions that may not be taken."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

import kerasrl
from kerasrl import action_masks
from kerasrl.distributions import Categorical, MultiCategorical
from kerasrl.losses import IMPOSSIBLE
from kerasrl.models import masking

COUNTS = [3, 2, 4]
BOX = spaces.Box(-1.0, 1.0, (4,), np.float32)


def masked_space(mask_space):
    return spaces.Dict({"observation": BOX, "action_mask": mask_space})


def random_legal(generator, rows=50):
    """Masks in which each choice has an option."""
    legal = generator.random((rows, sum(COUNTS))) < 0.4
    ends = np.cumsum(COUNTS)
    for row in range(rows):
        for end, count in zip(ends, COUNTS, strict=True):
            legal[row, end - 1 - generator.integers(count)] = True
    return legal


def test_a_choice_without_options_is_let_through():
    generator = np.random.default_rng(0)
    mask = (generator.random((200, sum(COUNTS))) < 0.3).astype(np.int8)
    legal = np.asarray(masking.legal_options(mask, COUNTS))
    starts = np.cumsum([0, *COUNTS])
    some_empty = 0
    for row, got in zip(mask, legal, strict=True):
        for start, end in zip(starts[:-1], starts[1:], strict=True):
            wanted = row[start:end] > 0
            some_empty += not wanted.any()
            np.testing.assert_array_equal(
                got[start:end], wanted if wanted.any() else ~wanted
            )
    assert some_empty > 50
    one_choice = masking.legal_options(np.array([[[0, 1], [0, 0]]]), [2])
    assert np.asarray(one_choice).tolist() == [[[False, True], [True, True]]]


@pytest.mark.parametrize("lead", [(), (5,)])
def test_distributions_are_those_of_the_legal_actions(lead):
    """Log-probabilities, entropies and divergences, choice by choice."""
    generator = np.random.default_rng(1)
    size = (*lead, 50, sum(COUNTS))
    first, second = generator.normal(size=(2, *size)).astype(np.float32)
    legal = np.broadcast_to(random_legal(generator), size)
    ours, other = (
        MultiCategorical(masking.mask_illegal(logits, legal), COUNTS)
        for logits in (first, second)
    )
    actions = np.asarray(ours.sample(seed=3))
    starts = np.cumsum([0, *COUNTS])
    for where in np.ndindex(size[:-1]):
        log_prob = entropy = divergence = 0.0
        for k, (start, end) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
            options = np.flatnonzero(legal[where][start:end])
            action = actions[where][k]
            assert action in options
            p, q = (
                np.exp(logits[where][start:end][options].astype(np.float64))
                for logits in (first, second)
            )
            p, q = p / p.sum(), q / q.sum()
            log_prob += np.log(p[options.tolist().index(action)])
            entropy -= np.sum(p * np.log(p))
            divergence += np.sum(p * np.log(p / q))
        np.testing.assert_allclose(ours.log_prob(actions)[where], log_prob, atol=1e-5)
        np.testing.assert_allclose(ours.entropy()[where], entropy, atol=1e-5)
        np.testing.assert_allclose(ours.kl(other)[where], divergence, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_everything_is_finite_and_no_gradient_reaches_an_illegal_action(dtype):
    legal = np.array([[True, False, True], [False, True, False]])
    logits = tf.Variable(np.zeros((2, 3)), dtype=dtype)
    with tf.GradientTape() as tape:
        masked = masking.mask_illegal(logits, legal)
        distribution = Categorical(masked)
        loss = keras.ops.sum(distribution.log_prob(np.array([0, 1])))
        loss += keras.ops.sum(distribution.entropy())
        loss += keras.ops.sum(distribution.kl(Categorical(masked * 0.5)))
    assert np.isfinite(masked).all() and np.isfinite(distribution.log_probs).all()
    gradient = tape.gradient(loss, logits).numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[~legal] == 0).all() and (gradient[legal] != 0).any()
    if dtype == "float32":
        assert masked.numpy()[0, 1] == action_masks.ILLEGAL < IMPOSSIBLE


def test_random_choices_are_uniform_among_legal_ones():
    legal = np.tile([[False, True, True, False, True]], (30_000, 1))
    uniform = np.random.default_rng(0).random(30_000).astype(np.float32)
    uniform[:2] = 0.0, np.nextafter(np.float32(1), np.float32(0))
    counts = np.bincount(np.asarray(masking.random_legal(uniform, legal)), minlength=5)
    assert counts[[0, 3]].tolist() == [0, 0]
    assert np.abs(counts[[1, 2, 4]] - 10_000).max() < 400


@pytest.mark.parametrize(
    ("space", "actions", "message"),
    [
        (spaces.MultiBinary(4), spaces.Discrete(3), r"MultiBinary\(3\)"),
        (spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(3), "from 0 to 1"),
        (spaces.MultiBinary(2), BOX, "Discrete and MultiDiscrete actions only"),
    ],
)
def test_what_cannot_be_a_mask_is_refused(space, actions, message):
    with pytest.raises(ValueError, match=message):
        action_masks.has_mask(masked_space(space), actions)
    with pytest.raises(ValueError, match="action_mask"):
        kerasrl.PPO().build(masked_space(space), actions)


def test_a_mask_alone_is_no_observation():
    space = spaces.Dict({"action_mask": spaces.MultiBinary(3)})
    with pytest.raises(ValueError, match="alone"):
        kerasrl.PPO().build(space, spaces.Discrete(3))


@pytest.mark.parametrize(
    "mask_space",
    [
        spaces.MultiBinary(3),
        spaces.Box(0, 1, (3,), np.int8),
        spaces.Box(0.0, 1.0, (3,), np.float32),
        spaces.Box(0, 1, (3,), bool),
        spaces.MultiDiscrete([2, 2, 2]),
    ],
)
def test_networks_do_not_get_the_mask(mask_space):
    """With it, the network is the one for the observation alone."""
    with_mask, without = (
        kerasrl.models.ActorCritic(seed=1, hidden_units=(8,)) for _ in range(2)
    )
    with_mask.build_for(masked_space(mask_space), spaces.Discrete(3))
    without.build_for(BOX, spaces.Discrete(3))
    inputs = without.sample_inputs(6, np.random.default_rng(0))
    mask = np.tile([[0, 1, 1]], (6, 1)).astype(mask_space.dtype)
    masked_inputs = {
        **inputs,
        "observations": {"observation": inputs["observations"], "action_mask": mask},
    }
    tensors = keras.tree.map_structure(tf.convert_to_tensor, masked_inputs)
    outputs, expected = with_mask(tensors), without(inputs)
    np.testing.assert_array_equal(outputs["values"], expected["values"])
    logits = outputs["distribution"].numpy()
    np.testing.assert_array_equal(logits[:, 1:], expected["distribution"][:, 1:])
    assert (logits[:, 0] == action_masks.ILLEGAL).all()


def test_a_policy_of_ones_own_is_masked_too():
    class Mine(kerasrl.models.Policy):
        def setup(self, observation_space, action_space):
            super().setup(observation_space, action_space)
            self.head = keras.layers.Dense(self.num_parameters)

        def call(self, inputs, state=None, training=False):
            observations = inputs["observations"]["observation"]
            logits = self.head(observations)
            return {"distribution": logits, "values": logits[:, 0]}

    policy = Mine()
    policy.build_for(masked_space(spaces.MultiBinary(3)), spaces.Discrete(3))
    inputs = policy.sample_inputs(4, np.random.default_rng(0))
    mask = inputs["observations"]["action_mask"] = np.int8([[0, 1, 0]] * 4)
    assert (policy.distribution(policy(inputs)).mode().numpy() == 1).all()
    sequence = keras.tree.map_structure(lambda x: x[None], inputs)
    outputs = policy.unroll(sequence, (), np.zeros((1, 4), bool))
    assert (policy.distribution(outputs).mode().numpy() == 1).all()
    assert mask.sum() == 4


def test_policies_saved_before_masks_read_them_as_observations():
    space = masked_space(spaces.MultiBinary(3))
    policy = kerasrl.models.ActorCritic(hidden_units=(8,))
    policy.build_for(space, spaces.Discrete(3))
    config = policy.get_build_config()
    assert config.pop("honours_masks") is True
    older = kerasrl.models.ActorCritic(hidden_units=(8,))
    older.build_from_config(config)
    kernels = [p.trunks["policy"].weights[0].shape[0] for p in (policy, older)]
    assert kernels == [4, 7]
    inputs = older.sample_inputs(4, np.random.default_rng(0))
    assert (older(inputs)["distribution"].numpy() > IMPOSSIBLE).all()


@pytest.mark.parametrize(
    ("network", "key"),
    [
        (kerasrl.models.ActorCritic, "distribution"),
        (kerasrl.models.QNetwork, "q_values"),
    ],
)
@pytest.mark.parametrize("cell", [None, "gru"])
def test_sequences_are_masked_step_by_step(network, key, cell):
    policy = network(cell=cell, hidden_units=(4,), seed=0)
    policy.build_for(masked_space(spaces.MultiBinary(3)), spaces.Discrete(3))
    steps = [policy.sample_inputs(5, np.random.default_rng(k)) for k in range(4)]
    sequence = keras.tree.map_structure(lambda *rows: np.stack(rows), *steps)
    state = policy.get_initial_state(5)
    starts = np.zeros((4, 5), bool)
    unrolled = policy.unroll(sequence, state, starts)[key].numpy()
    for inputs, got in zip(steps, unrolled, strict=True):
        outputs = policy(inputs, state=state)
        state = outputs.get("state", ())
        np.testing.assert_allclose(got, outputs[key], atol=1e-5)
    mask = sequence["observations"]["action_mask"]
    illegal = (mask == 0) & mask.any(-1, keepdims=True)
    assert illegal.any() and (unrolled[illegal] == action_masks.ILLEGAL).all()
    assert (unrolled[~illegal] > IMPOSSIBLE).all()


class Wide(kerasrl.models.QFunction):
    """As many values as it is told."""

    width = 1

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.head = keras.layers.Dense(self.width)

    def call(self, inputs, state=None, training=False):
        return {"q_values": self.head(inputs["observations"]["observation"])}


@pytest.mark.parametrize("width", [1, 4])
def test_a_wrong_number_of_values_is_not_stretched(width):
    network = Wide()
    network.width = width
    with pytest.raises(ValueError, match=rf"shape \(1, {width}\).*\(1, 3\)"):
        network.build_for(masked_space(spaces.MultiBinary(3)), spaces.Discrete(3))


def test_only_distributions_of_choices_can_be_masked():
    class Softer(Categorical):
        pass

    class Choosing(kerasrl.models.ActorCritic):
        def choose_distribution(self, action_space):
            chosen = super().choose_distribution(action_space)
            chosen.distribution_class = self.chosen
            return chosen

    arguments = masked_space(spaces.MultiBinary(3)), spaces.Discrete(3)
    policy = Choosing(hidden_units=(4,))
    policy.chosen = Softer
    policy.build_for(*arguments)
    assert policy.distribution_type.distribution_class is Softer
    policy = Choosing(hidden_units=(4,))
    policy.chosen = kerasrl.distributions.DiagonalGaussian
    with pytest.raises(ValueError, match="DiagonalGaussian.*Masks replace"):
        policy.build_for(*arguments)
