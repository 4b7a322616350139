"""DDPG, TD3 and SAC with memory: their losses over sequences, from the definition."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from by_definition import BOX, DISCRETE, build, sequences, take_step

import kerasrl
from kerasrl.agents import sequences as learning
from kerasrl.models.policy import reset_state
from kerasrl.training import critics, gradients

SMALL = {"hidden_units": (8,), "cell_units": 4, "previous_inputs": True}
BURN_IN, N_STEP, GAMMA = 2, 2, 0.9


def hostile(action_space, cell):
    """Sequences with every kind of end, in the actions of a space."""
    batch = sequences()
    shape = batch["rewards"].shape
    generator = np.random.default_rng(1)
    if action_space is BOX:
        for name in ("actions", "previous_actions"):
            size = (*shape, *BOX.shape)
            batch[name] = generator.uniform(-1, 1, size).astype(np.float32)
    parts = 2 if cell == "lstm" else 1
    state = tuple(
        generator.normal(size=(shape[0], 4)).astype(np.float32) for _ in range(parts)
    )
    batch["state"] = {"policy": state, "critics": tuple(-x for x in state)}
    batch["previous_rewards"] = generator.normal(size=shape).astype(np.float32)
    return batch


def step_by_step(policy, batch):
    """What the policy returns for each row, a list of times."""
    state, rows = batch["state"], []
    initial = policy.get_initial_state(len(batch["rewards"]))
    for time in range(batch["rewards"].shape[1]):
        state = reset_state(state, initial, batch["episode_starts"][:, time])
        names = ("observations", "previous_actions", "previous_rewards")
        outputs = policy({name: batch[name][:, time] for name in names}, state=state)
        state = outputs.pop("state")
        rows.append(outputs)
    return rows


def target_of(batch, values, row, time):
    """The n-step return from a row, or None where it cannot be known."""
    last = batch["rewards"].shape[1] - 1
    total = 0.0
    for k in range(N_STEP):
        now = time + k
        ends = batch["terminated"][row, now]
        if not batch["valid"][row, now] or (now == last and not ends):
            # What is there ends at the row before, with the value of this one.
            return None if k == 0 else total + GAMMA**k * values[row, now]
        total += GAMMA**k * batch["rewards"][row, now]
        if ends:
            return total
        if batch["truncated"][row, now]:
            break
    return total + GAMMA ** (k + 1) * values[row, now + 1]


@pytest.mark.parametrize(
    "agent_class, action_space, cell",
    [
        (kerasrl.DDPG, BOX, "lstm"),
        (kerasrl.TD3, BOX, "gru"),
        (kerasrl.SAC, DISCRETE, "lstm"),
    ],
)
def test_losses_over_sequences(agent_class, action_space, cell):
    more = {kerasrl.TD3: {"target_noise": 0.0, "policy_delay": 1}}
    agent = agent_class(
        policy={**SMALL, "cell": cell},
        burn_in=BURN_IN,
        sequence_length=4,
        n_step=N_STEP,
        gamma=GAMMA,
        **more.get(agent_class, {}),
    )
    agent = build(agent, action_space, spread=0.4)
    policy, batch = agent.policy, hostile(action_space, cell)
    discrete = action_space is DISCRETE
    rows = step_by_step(policy, batch)
    with agent.target.scope():
        target_rows = step_by_step(policy, batch)

    def best(outputs, judge, judged_by):
        """Soft value, or that of the policy's action, for one row of each sequence."""
        if discrete:
            log_probs = policy.distribution(outputs).log_probs
            q_values = tf.reduce_min(judge(judged_by, None), 0)
            weight = tf.exp(agent.log_temperature.value)
            return tf.reduce_sum(
                tf.exp(log_probs) * (q_values - weight * log_probs), axis=-1
            )
        return judge(judged_by, policy.mode(outputs))

    with agent.target.scope():
        values = np.stack(
            [
                best(x, lambda o, a: policy.remembered_q_values(o, None, a), x)
                if discrete
                else tf.reduce_min(
                    best(x, lambda o, a: policy.remembered_q_values(o, None, a), x), 0
                )
                for x in target_rows
            ],
            axis=1,
        )
    critic_terms, policy_terms = [], []
    for time in range(BURN_IN, len(rows)):
        outputs, actions = rows[time], batch["actions"][:, time]
        if discrete:
            every = policy.remembered_q_values(outputs, None)
            taken = np.take_along_axis(every.numpy(), actions[None, :, None], -1)[
                ..., 0
            ]
        else:
            taken = policy.remembered_q_values(
                outputs, None, policy.normalize_actions(actions)
            ).numpy()
        own = best(
            outputs, lambda o, a: policy.remembered_q_values(o, None, a), outputs
        )
        own = own if discrete else own[0]
        for row in range(len(taken[0])):
            target = target_of(batch, values, row, time)
            if target is not None:
                errors = taken[:, row] - target
                critic_terms.append(batch["weights"][row] * 0.5 * errors**2)
                policy_terms.append(-float(own[row]))
    metrics, errors, _ = take_step(agent, batch, update_policy=True)
    expected = np.sum(np.mean(critic_terms, axis=0))
    np.testing.assert_allclose(metrics["critic_loss"], expected, rtol=1e-4)
    expected = np.mean(policy_terms)
    np.testing.assert_allclose(metrics["policy_loss"], expected, rtol=1e-4, atol=1e-5)
    assert errors.shape == batch["weights"].shape


def test_each_loss_moves_its_own_memory():
    agent = kerasrl.DDPG(policy={**SMALL, "cell": "lstm"}, burn_in=1, sequence_length=5)
    agent = build(agent, BOX, spread=0.4)
    batch = keras.tree.map_structure(tf.constant, hostile(BOX, "lstm"))
    batch["mask"] = tf.cast(batch["valid"], "float32")
    prepared = learning.prepared(agent, batch)

    def moved(loss):
        found, _ = gradients.compute_gradients(agent, prepared, {}, loss)
        variables = [v for part in agent.parts().values() for v in part]
        return {
            id(v) for v, g in zip(variables, found, strict=True) if np.any(g.numpy())
        }

    critic = moved(lambda b, o, s: critics.critic_loss(agent, b, o))
    actor = moved(lambda b, o, s: (critics.policy_loss(agent, b, o), {}))
    assert critic == {id(v) for v in agent.policy.critic_variables()}
    assert actor == {id(v) for v in agent.policy.policy_variables()}


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="noise='gaussian'"):
        kerasrl.DDPG(policy={"cell": "lstm"}, noise="ornstein_uhlenbeck").fit(
            "Pendulum-v1", steps=8, verbose=0
        )
    with pytest.raises(ValueError, match="Give the policy a cell"):
        kerasrl.SAC(burn_in=3).fit("Pendulum-v1", steps=8, verbose=0)
    with pytest.raises(ValueError, match="noise_steps"):
        kerasrl.models.SoftActorCritic(cell="lstm", noise_steps=4)


def test_what_is_one_number_for_a_sequence_stays_whole():
    agent = kerasrl.DDPG(policy={**SMALL, "cell": "gru"}, burn_in=2, sequence_length=5)
    build(agent, BOX, spread=0.4)
    batch = keras.tree.map_structure(tf.constant, hostile(BOX, "gru"))
    ones_own = tf.range(len(batch["rewards"]))
    prepared = learning.prepared(agent, {**batch, "own": ones_own})
    assert prepared["own"] is ones_own
    assert prepared["weights"].shape == batch["weights"].shape
    assert prepared["rewards"].shape[1] == batch["rewards"].shape[1] - 2
