"""The target network: what it holds, who gets a gradient, when and how far it moves."""

import daily
import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from by_definition import BOX, DISCRETE, OBSERVATIONS, build, transitions, values

import kerasrl
from kerasrl import testing
from kerasrl.training.target_network import TargetNetwork, frozen

SMALL = {"hidden_units": (8,)}
X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def q_network(**arguments):
    policy = kerasrl.models.QNetwork(**{**SMALL, **arguments}, seed=0)
    policy.build_for(OBSERVATIONS, DISCRETE)
    return policy


def test_scope_runs_the_policy_with_the_copies():
    policy = q_network()
    target = TargetNetwork(policy.trainable_variables)
    before = policy({"observations": X})["q_values"].numpy()
    for variable in policy.trainable_variables:
        variable.assign(2.0 * variable.numpy() + 1.0)
    after = policy({"observations": X})["q_values"].numpy()
    with target.scope():
        inside = policy({"observations": X})["q_values"].numpy()
    np.testing.assert_array_equal(inside, before)
    assert not np.allclose(before, after)
    np.testing.assert_array_equal(policy({"observations": X})["q_values"], after)


def test_no_gradient_reaches_the_weights_through_the_copies():
    policy = q_network()
    target = TargetNetwork(policy.trainable_variables)
    with tf.GradientTape() as tape, target.scope():
        loss = tf.reduce_sum(policy({"observations": X})["q_values"])
    gradients = tape.gradient(loss, [v.value for v in policy.trainable_variables])
    assert gradients == [None] * 4


def test_random_generators_move_on_inside_the_scope():
    policy = q_network(noisy=True)
    target = TargetNetwork(policy.trainable_variables)
    draws = []
    for _ in range(3):
        with target.scope(), kerasrl.models.NoiseScope(stream=1):
            draws.append(policy({"observations": X})["q_values"].numpy())
    assert not np.allclose(draws[0], draws[1])
    assert not np.allclose(draws[1], draws[2])


@pytest.mark.parametrize("tau", [0.0, 0.25, 1.0])
def test_follow(tau):
    policy = q_network()
    target = TargetNetwork(policy.trainable_variables)
    old = values(target.variables)
    for variable in policy.trainable_variables:
        variable.assign(variable + 1.0)
    target.follow(tau)
    for copy, before, source in zip(
        values(target.variables), old, values(policy.trainable_variables), strict=True
    ):
        np.testing.assert_allclose(copy, (1 - tau) * before + tau * source, atol=1e-6)


def test_frozen_variables_pass_gradients_on_but_get_none():
    policy = kerasrl.models.DeterministicActorCritic(hidden_units=(8,), seed=0)
    policy.build_for(OBSERVATIONS, BOX)
    with tf.GradientTape() as tape:
        actions = policy.mode(policy({"observations": X}))
        with frozen(policy):
            loss = tf.reduce_sum(policy.q_values(X, actions))
    gradients = tape.gradient(loss, [v.value for v in policy.trainable_variables])
    assert all(np.any(g) for g in gradients[:4])
    assert gradients[4:] == [None] * 4


def test_what_follows():
    """Everything that is trained; of soft actor-critic only the critics."""
    for name in ("DQN", "R2D2", "TD3", "SAC", "SAC_recurrent"):
        agent = tiny.make(name)
        env = gymnasium.make(tiny.env_of(name))
        agent.build(env.observation_space, env.action_space)
        expected = agent.policy.trainable_variables
        if name.startswith("SAC"):
            expected = agent.policy.critic_variables()
        assert [v.path for v in agent.target.sources] == [v.path for v in expected]


def set_by_agent(agent, weights, path):
    agent.set_weights(weights)


def set_by_policy(agent, weights, path):
    agent.policy.set_weights(weights)


def load(agent, weights, path):
    other = tiny.make("SAC")
    env = gymnasium.make(tiny.env_of("SAC"))
    other.build(env.observation_space, env.action_space)
    other.set_weights(weights)
    other.policy.save_weights(path)
    agent.policy.load_weights(path)


def restore_best_weights(agent, weights, path):
    class Set(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.set_weights(weights if epoch == 0 else agent.get_weights())

    agent.fit(
        tiny.env_of("SAC"),
        epochs=3,
        steps_per_epoch=40,
        num_envs=2,
        verbose=0,
        callbacks=[
            Set(),
            keras.callbacks.EarlyStopping(
                "env_steps", mode="min", restore_best_weights=True
            ),
        ],
    )


@pytest.mark.parametrize(
    "set_weights", [set_by_agent, set_by_policy, load, restore_best_weights]
)
def test_the_target_is_what_the_weights_were_set_to(set_weights, tmp_path):
    agent = tiny.make("SAC", run_eagerly=True)
    agent.fit(tiny.env_of("SAC"), steps=68, num_envs=2, verbose=0)
    if set_weights is not restore_best_weights:
        # A target that diverged must not stay so.
        agent.target.variables[0].assign(agent.target.variables[0] + np.nan)
    weights = [weight + 0.125 for weight in agent.get_weights()]
    set_weights(agent, weights, tmp_path / "sac.weights.h5")
    for a, b in zip(agent.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(a, b)
    pairs = zip(agent.target.variables, agent.target.sources, strict=True)
    for copy, source in pairs:
        np.testing.assert_array_equal(copy, source)


def test_weights_that_are_set_are_acted_with_at_once():
    """In the middle of training too, whoever set them."""
    agent = tiny.make("DQN", exploration=0.0, learning_starts=0)
    agent.fit(tiny.env_of("DQN"), steps=40, num_envs=2, verbose=0)
    seen = []

    class Set(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            weights = [np.zeros_like(weight) for weight in agent.get_weights()]
            weights[-1][:] = [0.0, 1.0]  # The bias of the values.
            self.model.set_weights(weights)

    class Look(kerasrl.callbacks.Callback):
        def on_rollout_end(self, rollout):
            seen.append(np.array(rollout.actions))

    callbacks = [Set(), Look()]
    agent.fit(tiny.env_of("DQN"), steps=8, num_envs=2, verbose=0, callbacks=callbacks)
    assert (seen[0] == 1).all()


def test_layers_that_were_set_before_training_are_followed():
    agent = tiny.make("DQN", learning_starts=1000)
    env = gymnasium.make(tiny.env_of("DQN"))
    agent.build(env.observation_space, env.action_space)
    variable = agent.policy.trainable_variables[0]
    variable.assign(variable + 1.0)
    agent.fit(tiny.env_of("DQN"), steps=16, num_envs=2, verbose=0)
    np.testing.assert_array_equal(agent.target.variables[0], variable)


def test_a_checkpoint_has_a_target_of_its_own(tmp_path):
    agent = tiny.make("DQN", run_eagerly=True, learning_starts=0)
    agent.fit(tiny.env_of("DQN"), steps=64, num_envs=2, verbose=0)
    assert not np.array_equal(agent.target.variables[0], agent.target.sources[0])
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    for a, b in zip(loaded.target.variables, agent.target.variables, strict=True):
        np.testing.assert_array_equal(a, b)


# When it moves ------------------------------------------------------------------------

SCHEDULES = [
    # train_every, gradient_steps, updates_per_call, num_envs, interval
    (4, 1, 3, 8, 10),
    (1, 2, 1, 3, 5),
    (6, 4, 5, 4, 9),
    (10, 1, 1, 3, 1),
]
MORE_SCHEDULES = [
    (1, 1, 1, 1, 1),
    (4, 1, 1, 1, 4),
    (4, 1, 8, 2, 12),
    (1, 1, 16, 4, 7),
    (3, 2, 1, 5, 50),
]


@pytest.mark.parametrize(
    "train_every, gradient_steps, updates_per_call, num_envs, interval",
    [*SCHEDULES, *(pytest.param(*x, marks=pytest.mark.slow) for x in MORE_SCHEDULES)],
)
def test_steps_and_target_updates_of_a_run(
    train_every, gradient_steps, updates_per_call, num_envs, interval
):
    """Counted by what they do: steps by the optimizer, the target by its distance.

    Without a learning rate the policy stands still, and each time the target follows
    the distance shrinks by the same factor.
    """
    tau = 0.125
    agent = kerasrl.SimpleQ(
        policy=SMALL,
        learning_starts=0,
        batch_size=2,
        train_every=train_every,
        gradient_steps=gradient_steps,
        updates_per_call=updates_per_call,
        tau=tau,
        target_update_interval=interval,
    )
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    env = testing.TwoRoundEnv()
    agent.build(env.observation_space, env.action_space)
    for variable in agent.target.variables:
        variable.assign(variable + 1.0)
    for _ in range(2):  # In two runs, to see that the count goes on.
        agent.fit(testing.TwoRoundEnv, steps=60, num_envs=num_envs, verbose=0)
    steps = agent.env_steps * gradient_steps / train_every
    assert agent.updates == steps
    assert int(agent.policy.optimizer.iterations) == steps
    # Once per interval of environment steps, and once per gradient step at most.
    follows = min(agent.env_steps // interval, agent.updates)
    distance = agent.target.variables[0] - agent.target.sources[0]
    np.testing.assert_allclose(distance, (1 - tau) ** follows, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "train_every, gradient_steps, updates_per_call, num_envs, _",
    [*SCHEDULES, *MORE_SCHEDULES],
)
def test_as_many_steps_in_a_call_as_wanted(
    train_every, gradient_steps, updates_per_call, num_envs, _
):
    """At least so many, and no more than whole iterations need."""
    agent = kerasrl.SimpleQ(
        policy=SMALL,
        train_every=train_every,
        gradient_steps=gradient_steps,
        updates_per_call=updates_per_call,
    )
    length, steps = agent.iteration_length(num_envs), agent.num_updates(num_envs)
    assert steps >= updates_per_call
    assert steps * train_every == length * num_envs * gradient_steps
    shorter = [
        n
        for n in range(1, length)
        if n * num_envs * gradient_steps % train_every == 0
        and n * num_envs * gradient_steps // train_every >= updates_per_call
    ]
    assert not shorter


def test_several_steps_in_a_call_are_those_of_several_calls():
    """The target follows in between, at the same steps."""
    batches = [transitions(seed=seed) for seed in range(4)]
    batches = {name: np.stack([b[name] for b in batches]) for name in batches[0]}
    results = []
    for size in (1, 4):
        agent = kerasrl.DQN(
            policy=SMALL, train_every=1, target_update_interval=3, tau=0.5
        )
        build(agent)
        agent.compile(keras.optimizers.SGD(1e-2), jit_compile=False)
        for start in range(0, 4, size):
            numbers = np.arange(start, start + size)
            chosen = {name: x[start : start + size] for name, x in batches.items()}
            update = kerasrl.training.compiled.CompiledUpdate(agent, agent._updates)
            update(chosen, agent.scheduled_values(), agent.due(numbers))
        results.append(values(agent.policy.weights + agent.target.variables))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "num_envs, train_every, gradient_steps, updates_per_call",
    [
        # Half a step in an iteration.
        pytest.param(1, 20, 1, 1, marks=pytest.mark.slow),
        pytest.param(3, 20, 1, 1, marks=pytest.mark.slow),  # One and a half.
        pytest.param(2, 4, 1, 1, marks=pytest.mark.slow),  # Two whole ones.
        pytest.param(1, 7, 3, 1, marks=pytest.mark.slow),
        (2, 4, 1, 5),  # More in a call than an iteration brings.
    ],
)
def test_r2d2_takes_exactly_the_steps_that_are_due(
    num_envs, train_every, gradient_steps, updates_per_call
):
    agent = tiny.make(
        "R2D2",
        learning_starts=40,
        train_every=train_every,
        gradient_steps=gradient_steps,
        updates_per_call=updates_per_call,
    )
    counts = []

    class Count(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            counts.append((agent.env_steps, agent.updates))

    agent.fit(
        testing.TwoRoundEnv,
        epochs=20,
        steps_per_epoch=1,
        num_envs=num_envs,
        verbose=0,
        callbacks=[Count()],
    )
    assert agent.updates == int(agent.policy.optimizer.iterations) > 0
    size = agent.num_updates(num_envs)
    assert size >= updates_per_call
    steps = agent.period * num_envs
    before = (40 - 1) // steps * steps  # Those of the iterations that only collected.
    for env_steps, taken in counts:
        due = max(0, env_steps - before) * gradient_steps // train_every
        assert taken == due // size * size


def test_an_empty_buffer_is_filled_before_it_is_learnt_from(tmp_path):
    """After loading without replay, however long the training before was."""
    agent = tiny.make("DQN", run_eagerly=True, learning_starts=60)
    env = tiny.env_of("DQN")
    agent.fit(env, steps=96, num_envs=2, verbose=0)
    before = agent.updates
    assert before > 0
    paths = [tmp_path / "with.kerasrl", tmp_path / "without.kerasrl"]
    whole, empty = (
        kerasrl.load(agent.save(path, include_replay=path == paths[0]))
        for path in paths
    )
    for loaded in (whole, empty):
        loaded.fit(env, steps=48, num_envs=2, verbose=0)
    assert whole.updates > before and empty.updates == before
    # Random actions would fill it with what nobody does any more.
    assert (empty.exploration_inputs(2)["epsilon"] < 1.0).all()
    empty.fit(env, steps=48, num_envs=2, verbose=0)
    assert empty.updates > before


@pytest.mark.parametrize("name", daily.among(["DQN", "R2D2", "SAC", "DDPG"], ["R2D2"]))
def test_nothing_is_learnt_before_learning_starts(name):
    agent = tiny.make(name, learning_starts=100)
    env = gymnasium.make(tiny.env_of(name))
    agent.build(env.observation_space, env.action_space)
    before = values(agent.policy.variables + agent.target.variables)
    agent.fit(tiny.env_of(name), steps=96, num_envs=2, verbose=0)
    assert agent.env_steps == 96 and agent.updates == 0
    after = values(agent.policy.variables + agent.target.variables)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    agent.fit(tiny.env_of(name), steps=32, num_envs=2, verbose=0)
    assert agent.updates > 0


def test_the_same_step_always_has_the_same_result():
    """Reads come before writes, in whichever order threads get to them."""
    agent = build(kerasrl.SAC(policy=SMALL, tau=0.5))
    batch = {name: tf.constant(x) for name, x in transitions().items()}
    batch["mask"] = tf.ones(12)

    @tf.function(autograph=False)
    def step():
        metrics = agent.update(batch, {})
        agent.target.follow(agent.tau)
        return metrics["loss"], metrics["td_errors"]

    variables = [*agent.trainable_variables, *agent.target.variables]
    start = [variable.numpy() for variable in variables]
    results = set()
    for _ in range(300):
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        loss, errors = step()
        results.add((float(loss), errors.numpy().tobytes()))
    assert len(results) == 1
