"""A3C, IMPALA and APPO: what they are without lag, and their updates with it."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from daily import among
from references import until_filler
from references import vtrace as reference_vtrace

import kerasrl
from kerasrl import testing

#: A3C and IMPALA have one trunk, if they are not told.
SMALL = {"hidden_units": (8,), "shared_trunk": False}
RECURRENT = {**SMALL, "cell": "gru", "cell_units": 4, "previous_inputs": True}
SLOW_RECURRENT = pytest.param(RECURRENT, marks=pytest.mark.slow)
#: Defaults that differ.
SAME = {"value_coef": 0.5, "max_grad_norm": 0.1}
#: Ends of both kinds, and finals whose values are of no other observation.
ENV = {"env": lambda: testing.RandomEndsEnv(0.1, 0.2), "num_envs": 3, "verbose": 0}


def make(agent_class, policy=SMALL, optimizer=None, **arguments):
    agent = agent_class(policy=policy, seed=0, **arguments)
    agent.compile(optimizer or keras.optimizers.SGD(0.01), jit_compile=False)
    return agent


def flat(weights):
    return np.concatenate([np.ravel(keras.ops.convert_to_numpy(w)) for w in weights])


def trained(agent, steps=120, **arguments):
    agent.fit(**{**ENV, **arguments}, steps=steps)
    return flat(agent.get_weights())


def noting(agent_class):
    """A class that keeps the weights before each update, and what it learns from."""

    class Noting(agent_class):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.noted = []

        def learn(self, rollout):
            before = self.policy.get_weights()
            published = {k: [*v] for k, v in self.published.items()}
            logs = super().learn(rollout)
            self.noted.append(
                (before, published, rollout, self.policy.get_weights(), logs)
            )
            return logs

    return Noting


# --- Without lag -------------------------------------------------------------------


@pytest.mark.parametrize("policy", [SMALL, SLOW_RECURRENT])
def test_a3c_is_a2c(policy):
    settings = {**SAME, "rollout_length": 5, "entropy_coef": 0.1}
    agents = [make(each, policy, **settings) for each in (kerasrl.A2C, kerasrl.A3C)]
    first, second = map(trained, agents)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("vtrace", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_impala_is_n_step_actor_critic(vtrace):
    """To rounding: V-trace makes advantages of the targets of the next steps.

    And, with `vtrace`, the actor's probabilities are NumPy's, so that ratios are 1 but
    for the last digit.
    """
    settings = {**SAME, "rollout_length": 5, "entropy_coef": 0.1}
    expected = trained(make(kerasrl.A2C, **settings))
    agent = make(kerasrl.IMPALA, vtrace=vtrace, **settings)
    np.testing.assert_allclose(trained(agent), expected, rtol=2e-5, atol=2e-6)
    untrained = make(kerasrl.A2C, **settings)
    untrained.build(*_spaces())
    assert np.abs(expected - flat(untrained.get_weights())).max() > 1e-3


@pytest.mark.parametrize(
    "policy, settings",
    [
        (SMALL, {}),
        pytest.param(
            RECURRENT,
            {"kl_coef": 0.5, "target_kl": 1e-4, "value_clip": 0.1},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_appo_is_ppo(policy, settings):
    settings = {
        **{"rollout_length": 8, "num_epochs": 2, "minibatch_size": 8},
        **settings,
    }
    agents = [
        make(each, policy, keras.optimizers.Adam(0.01), **settings)
        for each in (kerasrl.PPO, kerasrl.APPO)
    ]
    first, second = map(trained, agents)
    np.testing.assert_array_equal(first, second)
    assert agents[0].kl_coef == agents[1].kl_coef


def _spaces():
    env = ENV["env"]()
    return env.observation_space, env.action_space


# --- With lag ----------------------------------------------------------------------


def test_a3c_applies_gradients_of_the_weights_that_acted():
    settings = {**SAME, "rollout_length": 6, "max_grad_norm": None}
    agent = make(noting(kerasrl.A3C), lag=2, **settings)
    trained(agent)
    # One step of gradient descent at rate 1 tells the gradient.
    reference = make(
        kerasrl.A2C, None, keras.optimizers.SGD(1.0), entropy_coef=0.01, **settings
    )
    reference.policy = type(agent.policy)(**SMALL, seed=0)
    reference.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    reference.build(*_spaces())
    stale, finals = 0, 0
    for before, published, rollout, after, _ in agent.noted:
        version = int(rollout.extras["policy_version"][0, 0])
        reference.policy.set_weights(published[version])
        start = flat(published[version])
        reference.learn(rollout)
        gradient = start - flat(reference.policy.get_weights())
        taken = (flat(before) - flat(after)) / 0.01
        np.testing.assert_allclose(taken, gradient, rtol=1e-2, atol=2e-4)
        stale += not np.array_equal(start, flat(before))
        finals += rollout.final is not None
    assert stale >= 4 and finals >= 4


def test_a3c_refuses_what_was_acted_by_weights_it_does_not_have():
    agent = make(noting(kerasrl.A3C), rollout_length=6)
    trained(agent, steps=36)
    rollout = agent.noted[0][2]
    versions = np.zeros(rollout.rewards.shape, np.int64)
    rollout = dataclasses.replace(rollout, extras={"policy_version": versions})
    with pytest.raises(ValueError, match=r"version 0\. Known"):
        agent.fit([rollout], verbose=0)


@pytest.mark.parametrize(
    "name, policy",
    [
        ("IMPALA", RECURRENT),
        pytest.param("IMPALA", SMALL, marks=pytest.mark.slow),
        pytest.param("APPO", SMALL, marks=pytest.mark.slow),
        pytest.param("APPO", RECURRENT, marks=pytest.mark.slow),
    ],
)
def test_targets_are_those_of_vtrace(name, policy):
    """Ratios are of the present to the acting weights, values of the present ones."""
    clips = {"clip_rho": 1.05, "clip_c": 0.95, "clip_pg": 1.1}
    settings = {"rollout_length": 7, "lag": 2, **clips}
    if name == "APPO":
        settings |= {"vtrace": True, "gae_lambda": 0.9}
    else:
        settings |= {"trace_lambda": 0.9}
    cls = noting(getattr(kerasrl, name))
    agent = make(cls, policy, keras.optimizers.SGD(0.5), **settings)
    agent.keeps_published = True
    trained(agent, steps=7 * 3 * 5)
    before, published, rollout, _, logs = agent.noted[-1]
    version = int(rollout.extras["policy_version"][0, 0])
    assert version == agent.iterations - 1 - 2
    networks = {}
    for key, weights in (("acting", published[version]), ("present", before)):
        agent.policy.set_weights(weights)
        arrays = agent.arrays(rollout)
        outputs, next_values = _unroll(agent, arrays)
        distribution = agent.policy.distribution(outputs)
        networks[key] = (
            distribution.log_prob(rollout.actions).numpy().astype(float),
            outputs["values"].numpy().astype(float),
            next_values,
        )
    targets = agent.targets({**arrays, "extras": rollout.extras})
    log_probs, values, next_values = networks["present"]
    ratios = log_probs - networks["acting"][0]
    assert np.abs(ratios).max() > 0.01
    np.testing.assert_allclose(targets["log_ratios"], ratios, atol=1e-4)
    expected = [
        until_filler(lambda *x, n=n, **kw: reference_vtrace(*x, **kw)[n])(
            *(ratios, rollout.rewards, values, next_values),
            *(rollout.terminated, rollout.truncated),
            **{"valid": rollout.valid, "gamma": 0.99, "lam": 0.9, **clips},
        )
        for n in range(2)
    ]
    np.testing.assert_allclose(targets["returns"], expected[0], atol=1e-3)
    np.testing.assert_allclose(targets["advantages"], expected[1], atol=1e-3)
    valid = rollout.valid
    expected = np.exp(ratios)[valid].mean()
    np.testing.assert_allclose(logs["rho_mean"], expected, rtol=1e-3)
    share = (np.exp(ratios)[valid] > 1.05).mean()
    np.testing.assert_allclose(logs["rho_clipped_fraction"], share, atol=0.05)


def _unroll(agent, arrays):
    """Outputs, and the values of what follows, at ends those of final observations."""
    inputs = {
        name: np.concatenate([arrays[name], arrays["next_inputs"][name][None]])
        for name in ("observations", "previous_actions", "previous_rewards")
    }
    starts = np.concatenate(
        [arrays["episode_starts"], arrays["next_inputs"]["episode_starts"][None]]
    )
    outputs = agent.policy.unroll(inputs, arrays["state"], starts)
    values = outputs["values"].numpy()
    following = np.where(arrays["truncated"], arrays["truncation_values"], values[1:])
    outputs = {n: x[:-1] for n, x in outputs.items() if n != "state"}
    return outputs, following.astype(float)


def test_appo_compares_with_its_target_network():
    settings = {"rollout_length": 7, "num_epochs": 1, "minibatch_size": 8}
    agent = make(
        noting(kerasrl.APPO),
        optimizer=keras.optimizers.SGD(0.5),
        target_network=True,
        target_update_interval=3,
        lag=2,
        kl_coef=0.1,
        **settings,
    )
    trained(agent, steps=7 * 3 * 5)
    # After the third update it became equal, and has been so since.
    third = agent.noted[2][3]
    np.testing.assert_array_equal(flat(agent.target.variables), flat(third))
    rollout = agent.noted[-1][2]
    targets = agent.targets(agent.arrays(rollout))
    acting = agent.policy.distribution(
        {"distribution": tf.constant(rollout.extras["distribution"])}
    ).log_prob(rollout.actions)
    with agent.target.scope():
        outputs = agent.policy({"observations": rollout.observations.reshape(-1, 2)})
    parameters = outputs["distribution"].numpy().reshape(7, 3, -1)
    np.testing.assert_allclose(targets["distribution"], parameters, atol=1e-5)
    target = agent.policy.distribution(
        {"distribution": tf.constant(parameters)}
    ).log_prob(rollout.actions)
    np.testing.assert_allclose(targets["log_ratios"], target - acting, atol=1e-5)
    expected = np.maximum(target, acting - np.log(2.0))
    np.testing.assert_allclose(targets["log_probs"], expected, atol=1e-5)
    np.testing.assert_allclose(targets["near_log_probs"], target, atol=1e-5)
    agent.policy.set_weights(third)
    np.testing.assert_array_equal(flat(agent.target.variables), flat(third))


# --- Checkpoints -------------------------------------------------------------------


@pytest.mark.parametrize(
    "agent_class, settings",
    [
        pytest.param(
            kerasrl.A3C, {"lag": 2, "rollout_length": 6}, marks=pytest.mark.slow
        ),
        (kerasrl.IMPALA, {"lag": 1, "rollout_length": 6, "replay_proportion": 0.7}),
        pytest.param(
            kerasrl.IMPALA,
            {"policy": RECURRENT, "replay_proportion": 1.5},
            marks=pytest.mark.slow,
        ),
        (kerasrl.APPO, {"lag": 1, "target_network": True, "target_update_interval": 2}),
    ],
)
def test_a_checkpoint_goes_on_exactly(agent_class, settings, tmp_path):
    optimizer = keras.optimizers.Adam(0.01)
    agent = make(agent_class, optimizer=optimizer, normalize_rewards=True, **settings)
    trained(agent)
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    np.testing.assert_array_equal(trained(agent), trained(loaded))
    for first, second in zip(_everything(agent), _everything(loaded), strict=True):
        np.testing.assert_array_equal(first, second)


def _everything(agent):
    arrays = agent.get_arrays()
    own = [keras.ops.convert_to_numpy(v) for v in agent.own_variables]
    return [*(arrays[name] for name in sorted(arrays)), *own]


class Says(testing.RandomEndsEnv):
    """Has something to say in every other step."""

    def step(self, action):
        self.steps = getattr(self, "steps", 0) + 1
        found = super().step(action)
        return (*found[:4], {"x": 1.0} if self.steps % 2 else {})


def test_what_is_replayed_was_counted_and_is_saved_with_what_is_missing(tmp_path):
    policy = {**SMALL, "normalize_observations": True}
    settings = {"env": lambda: Says(0.1, 0.2), "info_keys": ["x"], "steps": 60}
    agent = make(kerasrl.IMPALA, policy, replay_proportion=1.0, rollout_length=5)
    trained(agent, **settings)
    (normalizer,) = agent.policy.encoder.normalizers
    assert float(normalizer.count) == agent.env_steps == 60
    assert np.isnan(agent.recent.rollouts[0].infos["x"]).any()
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    np.testing.assert_array_equal(
        trained(agent, **settings), trained(loaded, **settings)
    )


def test_replayed_rollouts_are_learnt_from_as_often_as_asked():
    agent = make(
        kerasrl.IMPALA,
        optimizer=keras.optimizers.Adam(0.01),
        rollout_length=4,
        replay_proportion=0.5,
        replay_slots=3,
    )
    trained(agent, steps=4 * 3 * 10)
    assert agent.iterations == 10 and len(agent.recent.rollouts) == 3
    assert int(agent.policy.optimizer.iterations) == 15
    # Shapes that differ would be compiled for by turns.
    agent.fit(**{**ENV, "num_envs": 2}, steps=4 * 2)
    assert [r.rewards.shape for r in agent.recent.rollouts] == [(4, 2)]
    assert agent.num_traces == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda state, arrays: arrays.pop("recent.0.0"),
        lambda state, arrays: arrays.update({"recent.9.0": np.zeros(2)}),
        lambda state, arrays: arrays.update({"recent.0.0": np.zeros((1, 1, 2))}),
        lambda state, arrays: arrays.update(
            {"recent.0.0": np.full_like(arrays["recent.0.0"], np.nan)}
        ),
        lambda state, arrays: state["recent"].update(due=1.5),
        lambda state, arrays: state["recent"].pop("due"),
        lambda state, arrays: state["recent"]["rollouts"][0].update(first_env=-1),
        lambda state, arrays: state["recent"]["rollouts"][0].update(final=False),
        lambda state, arrays: state["recent"]["rollouts"].pop(),
    ],
)
def test_damaged_rollouts_are_refused(change, replaying):
    state, arrays = replaying.get_state(), replaying.get_arrays()
    replaying.set_state(state, arrays)
    change(state, arrays)
    with pytest.raises(ValueError, match="rollout"):
        replaying.set_state(state, arrays)


@pytest.fixture(scope="module")
def replaying():
    agent = make(kerasrl.IMPALA, rollout_length=12, replay_proportion=0.1)
    trained(agent)
    assert agent.recent.rollouts[0].final is not None
    return agent


def test_without_replay_arrays_a_checkpoint_starts_with_none(replaying):
    state = replaying.get_state()
    replaying_arrays = replaying.get_arrays()
    replaying.set_state(state, {})
    assert replaying.recent.rollouts == []
    replaying.set_state(state, replaying_arrays)
    assert len(replaying.recent.rollouts) > 1


# --- With workers ------------------------------------------------------------------


@pytest.mark.parametrize("name", among(["A3C", "IMPALA", "APPO"], ["A3C"]))
def test_learns_while_workers_act(name):
    agent = make(getattr(kerasrl, name), rollout_length=8)
    history = agent.fit(
        "CartPole-v1", steps=320, num_envs=4, num_workers=2, verbose=0
    ).history
    assert agent.iterations == 20
    assert np.isfinite(history["loss"]).all()
    assert {"policy_lag_mean", "queue_depth"} <= set(history)
    if name != "A3C":
        assert 0.5 < history["rho_mean"][0] < 2.0


@pytest.mark.parametrize("agent_class", [kerasrl.A3C, kerasrl.IMPALA])
def test_policy_and_values_share_what_they_are_told_to(agent_class):
    space = testing.RandomEndsEnv(0.1, 0.2)
    for policy, shared in ((None, True), (SMALL, False), ({"cell": "gru"}, True)):
        agent = make(agent_class, policy)
        agent.build(space.observation_space, space.action_space)
        assert (agent.policy.branch_names == ("shared",)) is shared
