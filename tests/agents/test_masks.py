"""Action masks from exploration to targets, with memory, in workers, after a resume."""

import daily
import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from by_definition import (
    DISCRETE,
    OBSERVATIONS,
    assert_close,
    critics,
    gradients_of,
    huber,
    net,
    take_step,
    transitions,
    values,
)
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import kerasrl
from kerasrl import testing
from kerasrl.agents.exploration import epsilon_greedy
from kerasrl.rollouts.checking import RecordedCheck

DISCRETE_AGENTS = [name for name in tiny.AGENTS if name not in tiny.CONTINUOUS]
#: One for each way to choose an action, and to learn from it.
CENTRAL = ["PPO_recurrent", "Rainbow", "R2D2", "SAC_discrete"]
MASKED = spaces.Dict(
    {"observation": OBSERVATIONS, "action_mask": spaces.MultiBinary(3)}
)


def make_agent(name, **arguments):
    """Choices, which is all that is seen here, are not normalized."""
    normalizes = name in tiny.ON_POLICY and "recurrent" not in name
    policy = {"normalize_observations": False} if normalizes else None
    return tiny.make(name, policy=policy, **arguments)


def illegal_actions(options=6, **kw):
    """An environment in which an illegal action is an error."""
    kw = {"num_illegal": 4, "episode_length": 7, "start": 2, **kw}
    return testing.IllegalActionsEnv(options, **kw)


def in_vector():
    """In NEXT_STEP mode, where actions at an end are ignored."""
    make = lambda: illegal_actions(source="observation", terminates=True)  # noqa: E731
    return SyncVectorEnv([make, make], autoreset_mode=AutoresetMode.NEXT_STEP)


@pytest.mark.parametrize("name", daily.among(DISCRETE_AGENTS, CENTRAL))
def test_no_illegal_action_ever(name):
    """Before learning starts and after, in evaluation, with fillers, on a resume."""
    make = lambda: illegal_actions(terminates=True)  # noqa: E731
    agent = make_agent(name)
    for env, num_envs in ((make, 2), (in_vector(), None)):
        agent.fit(env, steps=200, num_envs=num_envs, verbose=0)
        assert agent.actor().backend == "numpy"
        assert all(np.isfinite(array).all() for array in agent.get_weights())
    for deterministic in (True, False):
        agent.evaluate(make, episodes=3, deterministic=deterministic, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", DISCRETE_AGENTS)
def test_no_illegal_action_in_a_hundred_thousand(name):
    agent = make_agent(name, jit_compile="auto")
    agent.fit(illegal_actions, steps=100_000, num_envs=8, verbose=0)


def test_a_masked_policy_need_not_learn_what_is_illegal():
    """70 actions, 55 of them illegal: 2,048 steps suffice, and do not without masks."""
    results = {}
    for source in ("method", "none"):
        agent = kerasrl.PPO(policy={"hidden_units": (1024,)}, gamma=0.0, seed=0)
        make = lambda: testing.IllegalActionsEnv(70, 55, source)  # noqa: B023, E731
        agent.fit(make, steps=2_048, num_envs=8, verbose=0)
        results[source] = agent.evaluate(make, episodes=10, verbose=0)["return_mean"]
    assert results["method"] >= 90.0 and results["none"] <= 60.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PPO_recurrent", "R2D2"])
def test_resume_is_exact_and_workers_change_nothing(name, tmp_path):
    straight, resumed = (tiny.make(name) for _ in range(2))
    settings = {"steps": 100, "num_envs": 2, "verbose": 0}
    for agent, num_workers in ((straight, 0), (resumed, 2)):
        agent.fit(illegal_actions, num_workers=num_workers, **settings)
    resumed = kerasrl.load(resumed.save(tmp_path / "agent.kerasrl"))
    for agent in (straight, resumed):
        agent.fit(illegal_actions, **settings)
    for a, b in zip(straight.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_predict_takes_the_mask():
    agent = tiny.make("DQN")
    agent.fit(illegal_actions, steps=100, num_envs=2, verbose=0)
    mask = np.eye(6, dtype=np.int8)
    observations = {"observation": np.zeros((6, 1), int), "action_mask": mask}
    assert agent.predict(observations).tolist() == [2, 3, 4, 5, 6, 7]
    random = agent.predict(observations, deterministic=False)
    assert random.tolist() == [2, 3, 4, 5, 6, 7]
    with pytest.raises(ValueError, match="action_mask"):
        agent.predict({"observation": np.zeros((1, 1), int)})
    mask[3] = 0
    with pytest.raises(ValueError, match="row 3"):
        agent.predict(observations)


def test_recorded_rollouts_are_legal():
    rollouts = []

    class Keep(kerasrl.callbacks.Callback):
        def on_rollout_end(self, rollout):
            rollouts.append(rollout)

    agent = make_agent("A2C")
    agent.fit(illegal_actions, steps=40, num_envs=2, verbose=0, callbacks=[Keep()])
    agent.learn_from(rollouts[0])
    wrong = rollouts[-1]
    mask = wrong.observations["action_mask"]
    wrong.actions[1, 1] = np.argmin(mask[1, 1])
    check = RecordedCheck(agent.policy.observation_space, agent.policy.action_space)
    check(rollouts[0])
    with pytest.raises(ValueError, match="step 1 in environment 1.*forbids"):
        check(wrong)


def test_a_policy_with_its_own_way_through_time_is_masked_in_training():
    """Log-probabilities of learning are those of acting: no ratio differs from 1."""

    class Counting(kerasrl.models.Policy):
        def setup(self, observation_space, action_space):
            super().setup(observation_space, action_space)
            self.head = keras.layers.Dense(self.num_parameters)

        def get_initial_state(self, batch_size):
            return keras.ops.zeros((batch_size, 1))

        def call(self, inputs, state=None, training=False):
            seen = keras.ops.cast(inputs["observations"]["observation"], "float32")
            outputs = self.head(seen)
            values = outputs[..., 0]
            return {"distribution": outputs, "values": values, "state": state + 1.0}

        def unroll(self, inputs, state, episode_starts, training=False):
            seen = keras.ops.cast(inputs["observations"]["observation"], "float32")
            outputs = self.head(seen)
            return {
                **{"distribution": outputs, "values": outputs[..., 0]},
                "state": state + 1.0,
            }

    agent = kerasrl.PPO(policy=Counting(), rollout_length=8, num_epochs=1, seed=0)
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    history = agent.fit(illegal_actions, steps=32, num_envs=2, verbose=0).history
    assert history["clip_fraction"] == [0.0] and history["entropy"][0] <= np.log(2)


# By definition ------------------------------------------------------------------------


def masked_transitions():
    """Transitions with masks, those of terminal observations empty."""
    batch, generator = transitions(), np.random.default_rng(3)
    rows = np.arange(len(batch["rewards"]))
    for name in ("observations", "next_observations"):
        mask = (generator.random((len(rows), 3)) < 0.4).astype(np.int8)
        mask[rows, generator.integers(3, size=len(rows))] = 1
        if name == "observations":
            mask[rows, batch["actions"]] = 1
        else:
            mask[batch["terminated"]] = 0
        batch[name] = {"observation": batch[name], "action_mask": mask}
    return batch


def build(agent):
    """As `by_definition.build`, with masks."""
    agent.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    agent.build(MASKED, DISCRETE)
    generator = np.random.default_rng(5)
    for variable in [*agent.trainable_variables, *agent.target.variables]:
        variable.assign(generator.normal(size=variable.shape, scale=0.7))
    return agent


@pytest.mark.parametrize("double", [False, True])
def test_targets_of_dqn(double):
    batch = masked_transitions()
    agent = build(kerasrl.DQN(policy={"hidden_units": (8,)}, double=double))
    online, target = values(agent.trainable_variables), values(agent.target.variables)
    matters = 0
    following = batch["next_observations"]

    def reference(weights):
        nonlocal matters
        total = 0.0
        for i in range(len(batch["rewards"])):
            y = batch["rewards"][i]
            if batch["discounts"][i]:
                row = following["observation"][i : i + 1]
                judged = net(target, row)[0].numpy()
                selector = net(online, row)[0].numpy() if double else judged
                legal = np.flatnonzero(following["action_mask"][i])
                best = legal[selector[legal].argmax()]
                matters += best != selector.argmax()
                y += batch["discounts"][i] * judged[best]
            value = net(weights, batch["observations"]["observation"][i : i + 1])[0]
            error = value[batch["actions"][i]] - y
            total += batch["weights"][i] * huber(error, 1.0)
        return total / len(batch["rewards"])

    loss, gradients = gradients_of(reference, online)
    assert matters >= 2
    metrics, _, taken = take_step(agent, batch)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=2e-5)
    assert_close(taken, gradients)


def test_losses_of_discrete_sac():
    """Means over legal actions, and entropies wanted of as many as there are."""
    batch = masked_transitions()
    agent = kerasrl.SAC(policy={"hidden_units": (8,)}, entropy_fraction=0.7)
    agent = build(agent)
    policy, size = agent.policy, len(batch["rewards"])
    names = ("policy_hidden", "policy_head", "critics")
    layers = [values(getattr(policy, name).trainable_variables) for name in names]
    actor, critic = layers[0] + layers[1], layers[2]
    target = values(agent.target.variables)
    temperature = float(np.exp(agent.log_temperature.numpy()))

    def legal_policy(observations, i):
        legal = np.flatnonzero(observations["action_mask"][i])
        row = observations["observation"][i : i + 1]
        logits = net(actor, row)[0].numpy()[legal]
        probs = np.exp(logits - logits.max())
        return row, legal, probs / probs.sum()

    critic_loss = policy_loss = temperature_gradient = 0.0
    for i in range(size):
        y = batch["rewards"][i]
        if batch["discounts"][i]:
            row, legal, probs = legal_policy(batch["next_observations"], i)
            q_values = np.min([q[0].numpy() for q in critics(target, row)], axis=0)
            soft = q_values[legal] - temperature * np.log(probs)
            y += batch["discounts"][i] * np.sum(probs * soft)
        row, legal, probs = legal_policy(batch["observations"], i)
        both = [q[0].numpy() for q in critics(critic, row)]
        for q_values in both:
            error = q_values[batch["actions"][i]] - y
            critic_loss += 0.5 * batch["weights"][i] * error**2 / size
        lesser = np.min(both, axis=0)[legal]
        policy_loss += np.sum(probs * (temperature * np.log(probs) - lesser)) / size
        entropy = -np.sum(probs * np.log(probs))
        temperature_gradient += (entropy - 0.7 * np.log(len(legal))) / size
    metrics, _, taken = take_step(agent, batch)
    np.testing.assert_allclose(metrics["critic_loss"], critic_loss, rtol=1e-4)
    np.testing.assert_allclose(metrics["policy_loss"], policy_loss, rtol=1e-4)
    place = [v is agent.log_temperature for v in agent.trainable_variables].index(True)
    np.testing.assert_allclose(taken[place], temperature_gradient, rtol=1e-4)


def test_random_actions_are_uniform_among_legal_ones():
    legal = np.tile([[True, False, True, True]], (20_000, 1))
    q_values = np.where(legal, 0.0, -1e9).astype(np.float32)
    epsilon = np.full(len(legal), 0.6, np.float32)
    actions = epsilon_greedy(q_values, epsilon, seed=1, legal=tf.constant(legal))
    shares = np.bincount(np.asarray(actions), minlength=4) / len(legal)
    np.testing.assert_allclose(shares, [0.6, 0.0, 0.2, 0.2], atol=0.02)


def test_combinations_are_learnt_as_a_whole():
    """Two choices, which pay only if both are right."""
    agent = tiny.make("DQN", policy={"hidden_units": (32,)}, gamma=0.0)
    make = lambda: testing.IllegalActionsEnv([4, 3], 1, episode_length=10)  # noqa: E731
    agent.fit(make, steps=3_000, num_envs=4, verbose=0)
    assert agent.evaluate(make, episodes=10, verbose=0)["return_mean"] >= 8.0


@pytest.mark.parametrize("name", ["DQN", "SAC_discrete"])
def test_learning_starts_with_every_legal_action(name):
    rollouts = []

    class Keep(kerasrl.callbacks.Callback):
        def on_rollout_end(self, rollout):
            rollouts.append(rollout)

    agent = tiny.make(name, learning_starts=100_000)
    agent.fit(illegal_actions, steps=6_000, num_envs=8, verbose=0, callbacks=[Keep()])
    mask = np.concatenate([r.observations["action_mask"] for r in rollouts])
    actions = np.concatenate([r.actions for r in rollouts])
    chosen_rank = np.take_along_axis(mask.cumsum(-1), actions[..., None], -1)
    assert set(mask.sum(-1).ravel()) == {2}
    assert abs((chosen_rank == 1).mean() - 0.5) < 0.03
