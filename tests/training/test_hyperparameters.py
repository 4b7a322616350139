"""A constructor argument that is set later takes effect, or is refused, each one."""

import json
import math
import zipfile

import keras
import numpy as np
import pytest
from daily import among
from keras.optimizers import schedules
from tiny import AGENTS, OFF_POLICY, env_of, make

import kerasrl
from kerasrl import checks
from kerasrl.agents import Hyperparameter
from kerasrl.training.schedules import current

_NAN, _INF = float("nan"), float("inf")
_NUMBERS = (_NAN, _INF, -_INF, True, "x", 10**400)
_INTEGERS = (0, -1, 1.5, None, *_NUMBERS)
_FRACTIONS = (-0.1, 1.1, None, *_NUMBERS)
_FLAGS = ("no", 2, 0.5, _NAN, None)
_RATES = (-0.1, None, *_NUMBERS)

#: Another value of each argument, and values that it cannot have.
VALUES = {
    "policy": ({"hidden_units": (4,)}, ([1], 3)),
    "gamma": (0.5, _FRACTIONS),
    "max_grad_norm": (0.01, (0, -1.0, *_NUMBERS)),
    "normalize_rewards": (True, _FLAGS),
    "seed": (3, (-1, 1.5, *_NUMBERS)),
    "rollout_length": (4, _INTEGERS),
    "num_epochs": (3, _INTEGERS),
    "minibatch_size": (16, _INTEGERS),
    "gae_lambda": (0.5, _FRACTIONS),
    "clip_ratio": (0.01, (0, 0.0, *_RATES)),
    "value_clip": (0.01, (0, -1.0, *_NUMBERS)),
    "value_coef": (2.0, _RATES),
    "entropy_coef": (0.3, _RATES),
    "kl_coef": (0.3, _RATES),
    "target_kl": (0.02, (0, -1.0, *_NUMBERS)),
    "normalize_advantages": ("other", _FLAGS),
    "baseline": ("other", _FLAGS),
    "trace_lambda": (0.5, _FRACTIONS),
    "clip_rho": (0.5, _RATES),
    "clip_c": (0.5, _RATES),
    "clip_pg": (0.5, _RATES),
    "vtrace": ("other", _FLAGS),
    "reciprocal_clip": ("other", _FLAGS),
    "replay_proportion": (1.5, _RATES),
    "replay_slots": (3, _INTEGERS),
    "target_network": ("other", _FLAGS),
    "synchronous": ("other", _FLAGS),
    "lag": (4, (-1, *_INTEGERS[1:])),
    "fragments_per_update": (3, (0, -1, 1.5, *_NUMBERS)),
    "initial_priorities": ("other", _FLAGS),
    "n_step": (4, _INTEGERS),
    "buffer_size": (400, (7, *_INTEGERS)),
    "batch_size": (4, (501, *_INTEGERS)),
    "learning_starts": (70, (-1, *_INTEGERS[1:])),
    "train_every": (2, _INTEGERS),
    "gradient_steps": (3, _INTEGERS),
    "updates_per_call": (3, _INTEGERS),
    "tau": (0.7, (0, 0.0, *_FRACTIONS)),
    "target_update_interval": (7, _INTEGERS),
    "prioritized": ("other", _FLAGS),
    "importance_exponent": (0.9, (1.1, *_RATES)),
    "hindsight": ("future", ("past", 3, True)),
    "replay": ({"frame_axis": -1}, (3, [1])),
    "overlap": (True, _FLAGS),
    "double": ("other", _FLAGS),
    "dueling": ("other", _FLAGS),
    "noisy": ("other", _FLAGS),
    "num_atoms": (7, ()),
    "v_min": (-3.0, ()),
    "v_max": (70.0, ()),
    "num_quantiles": (5, ()),
    "exploration": (0.3, (1.5, [], [0.1, 1.5], *_RATES[:1], *_NUMBERS)),
    "huber_delta": (0.1, (0, -1.0, *_NUMBERS)),
    "noise": ("gaussian", ("white", None, 3)),
    "noise_scale": (0.3, ([], [-0.1], *_RATES)),
    "target_noise": (0.0, _RATES),
    "target_noise_clip": (0.1, (0, 0.0, *_RATES)),
    "policy_delay": (3, _INTEGERS),
    "temperature": (0.15, (0, 0.0, *_RATES)),
    "adjust_temperature": ("other", _FLAGS),
    "target_entropy": (-0.5, (_NAN, _INF, "automatic", True)),
    "entropy_fraction": (0.1, _FRACTIONS),
    "burn_in": (1, (-1, *_INTEGERS[1:])),
    "sequence_length": (5, _INTEGERS),
    "period": (3, _INTEGERS),
    "rescaling": (1e-2, (0, -1.0, *_NUMBERS)),
    "priority_mixture": (0.3, _FRACTIONS),
    "alpha": (0.7, _RATES),
    "beta": (0.4, _RATES),
    "num_actions": (3, _INTEGERS),
    "expectile": (0.6, _FRACTIONS),
    "max_weight": (3.0, (0, -1.0, None, *_NUMBERS)),
    "advantage_norm_start": (50.0, (0, -1.0, *_NUMBERS)),
    "advantage_norm_rate": (0.1, _FRACTIONS),
}
#: What has a meaning for one algorithm: without a buffer, batches have any size.
MEANINGFUL = [("CQL", "temperature", 0), ("MARWIL", "batch_size", 501)]
#: What cannot change any more in an agent that was fitted.
SETTLED = {
    *("policy", "seed", "adjust_temperature", "target_network"),
    "advantage_norm_start",
    *("dueling", "noisy", "num_atoms", "v_min", "v_max", "num_quantiles"),
}
FILLED = {"buffer_size", "hindsight", "prioritized", "replay"}
FILLED |= {"burn_in", "sequence_length", "period"}


def other(agent, name):
    value = VALUES[name][0]
    before = getattr(agent, name)
    if value == "other":
        return not before
    if name == "noise":
        return "gaussian" if before != "gaussian" else "ornstein_uhlenbeck"
    assert value != before
    return value


@pytest.fixture(scope="module")
def fitted():
    """Agents after a fit, and what their update was called with last."""
    kept = {}

    def fit(name):
        if name not in kept:
            # Line by line, each step in a call takes its time.
            several = name in OFF_POLICY and name != "R2D2"
            agent = make(name, **({"updates_per_call": 2} if several else {}))
            agent.fit(env_of(name), steps=96, num_envs=2, verbose=0)
            update, calls = agent._compiled_update, []
            update_type = type(update)
            original = update_type.__call__

            def recording(self, *inputs):
                calls.append(inputs)
                return original(self, *inputs)

            update_type.__call__ = recording
            try:
                agent.fit(env_of(name), steps=32, num_envs=2, verbose=0)
            finally:
                update_type.__call__ = original
            kept[name] = agent, calls[-1]
        return kept[name]

    return fit


def variables(agent):
    return [*agent.policy.variables, *agent.own_variables]


def optimizer_variables(agent):
    return [x for each in agent.optimizers.values() for x in each.variables]


def outcome(agent, update, inputs):
    """What an update makes of all variables, which are then as before."""
    everything = [*variables(agent), *optimizer_variables(agent)]
    before = [keras.ops.convert_to_numpy(x).copy() for x in everything]
    metrics = update(*inputs)
    after = [keras.ops.convert_to_numpy(x).copy() for x in variables(agent)]
    for variable, value in zip(everything, before, strict=True):
        variable.assign(value)
    return metrics, after


@pytest.mark.parametrize("algorithm", AGENTS)
def test_every_hyperparameter_has_another_value_here(algorithm):
    assert set(make(algorithm).hyperparameters()) <= set(VALUES)


@pytest.mark.parametrize("algorithm", AGENTS)
def test_values_without_meaning_are_refused_at_first_and_later(algorithm):
    agent = make(algorithm)
    for name in agent.hyperparameters():
        before = getattr(agent, name)
        for value in VALUES[name][1]:
            # Where it is the default, it means something.
            if value is None and (name == "exploration" or before is None):
                continue
            if (type(agent).__name__, name, value) in MEANINGFUL:
                continue
            with pytest.raises((ValueError, TypeError), match=name.split("_size")[0]):
                type(agent)(**{**_plain(agent), name: value})
            with pytest.raises((ValueError, TypeError), match=name.split("_size")[0]):
                setattr(agent, name, value)
            assert getattr(agent, name) is before


def _plain(agent):
    """Arguments to make such an agent again, all but those of the network."""
    return {
        name: getattr(agent, name)
        for name in ("batch_size", "buffer_size")
        if hasattr(agent, name)
    }


#: What the arguments of the others are, some agent here has too.
DAILY = ["PPO", "R2D2", "SAC_discrete"]


@pytest.mark.parametrize(
    "algorithm", among([x for x in AGENTS if "recurrent" not in x], DAILY)
)
def test_what_is_changed_takes_effect_or_is_refused(algorithm, fitted):
    agent, inputs = fitted(algorithm)
    function = agent._compiled_update.function
    for name in agent.hyperparameters():
        before, update = getattr(agent, name), agent._compiled_update
        value = other(agent, name)
        if name in SETTLED or name in FILLED:
            with pytest.raises(ValueError, match=f"{name}="):
                setattr(agent, name, value)
            assert getattr(agent, name) is before
            assert agent._compiled_update is update
            continue
        setattr(agent, name, value)
        assert getattr(agent, name) == value
        if agent._compiled_update is update:
            # Nothing that was compiled rests on it: line by line it is the same.
            if agent.scheduled and name in agent.scheduled:
                inputs = (inputs[0], agent.scheduled_values(), *inputs[2:])
            compiled = outcome(agent, update, inputs)
            agent.policy.run_eagerly = True
            try:
                by_line = outcome(agent, type(update)(agent, function), inputs)
            finally:
                agent.policy.run_eagerly = False
            assert compiled[0] == pytest.approx(by_line[0], rel=1e-3, abs=1e-4)
            for a, b in zip(compiled[1], by_line[1], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
        else:
            assert agent._compiled_update is None
        setattr(agent, name, before)
        agent._compiled_update = update


def changed_config(path, **values):
    """A checkpoint like another, of an agent made with other arguments."""
    changed = path.with_name("changed.kerasrl")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as target:
        for member in source.namelist():
            content = source.read(member)
            if member == "config.json":
                config = json.loads(content)
                config["config"].update(values)
                content = json.dumps(config).encode()
            target.writestr(member, content)
    return changed


@pytest.mark.parametrize(
    ("algorithm", "values"),
    [
        (
            "PPO",
            {
                "gamma": 0.1,
                "num_epochs": 3,
                "rollout_length": 8,
                "kl_coef": 0.2,
                "target_kl": 0.01,
            },
        ),
        pytest.param(
            "Rainbow",
            {"gamma": 0.5, "n_step": 1, "batch_size": 4, "train_every": 2},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "SAC",
            {"target_entropy": -3.0, "max_grad_norm": 0.1},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "DDPG",
            {"noise": "gaussian", "noise_scale": 0.4, "tau": 0.5},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "R2D2",
            {"exploration": 0.5, "n_step": 1, "double": False},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_next_fit_is_that_of_an_agent_made_with_the_new_values(
    algorithm, values, tmp_path
):
    def fit(agent):
        agent.fit(env_of(algorithm), steps=96, num_envs=2, verbose=0)
        return [keras.ops.convert_to_numpy(x) for x in variables(agent)]

    agent = make(algorithm)
    fit(agent)
    path = agent.save(tmp_path / "first.kerasrl")
    expected = fit(kerasrl.load(changed_config(path, **values)))
    for name, value in values.items():
        setattr(agent, name, value)
    assert {**agent.get_config(), **values} == agent.get_config()
    for a, b in zip(fit(agent), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def ppo():
    agent = make("PPO")
    agent.fit("CartPole-v1", steps=64, num_envs=2, verbose=0)
    return agent


def train(agent):
    agent.fit("CartPole-v1", steps=32, num_envs=2, verbose=0)


def test_what_stays_the_same_is_not_compiled_again(ppo):
    traces = ppo.num_traces
    ppo.gamma = 0.99
    ppo.entropy_coef = 0.1
    ppo.clip_ratio = lambda progress: 0.1
    ppo.target_kl = None
    train(ppo)
    assert ppo.num_traces == traces
    ppo.entropy_coef, ppo.clip_ratio = 0.0, 0.2


def test_one_schedule_after_another(ppo):
    ppo.clip_ratio = schedules.PolynomialDecay(0.2, 100, 0.1)
    assert current(ppo, "clip_ratio") != pytest.approx(0.3)
    ppo.clip_ratio = schedules.PolynomialDecay(0.3, 100, 0.3)
    assert current(ppo, "clip_ratio") == pytest.approx(0.3)
    ppo.clip_ratio = 0.2


def test_a_policy_that_is_compiled_again_trains_with_the_new_optimizer(ppo):
    old = ppo.policy.optimizer
    iterations = int(old.iterations)
    ppo.policy.compile(keras.optimizers.SGD(0.0))
    before = ppo.get_weights()
    train(ppo)
    trainable = ppo.policy.trainable_variables
    for variable, weight in zip(ppo.policy.weights, before, strict=True):
        if any(variable is each for each in trainable):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), weight)
    assert int(old.iterations) == iterations
    assert int(ppo.policy.optimizer.iterations) > 0
    ppo.policy.run_eagerly = True
    train(ppo)
    assert ppo._compiled_update._compiled == ppo._compiled_update._run
    ppo.policy.run_eagerly = False
    ppo.compile(jit_compile=False)


def test_a_schedule_that_replaces_the_learning_rate_is_heeded(ppo):
    ppo.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    train(ppo)
    variables = ppo.policy.trainable_variables
    for rate in (0.0, 0.1, 0.0):
        ppo.policy.optimizer.learning_rate = schedules.PolynomialDecay(rate, 100, rate)
        before = [variable.numpy() for variable in variables]
        train(ppo)
        moved = [(x.numpy() != y).any() for x, y in zip(variables, before, strict=True)]
        assert any(moved) == (rate > 0)
    ppo.compile(jit_compile=False)


@pytest.mark.parametrize("whose", ["agent", "policy"])
def test_what_is_compiled_after_training_is_what_is_saved(whose, ppo, tmp_path):
    compiled = ppo if whose == "agent" else ppo.policy
    compiled.compile(optimizer=keras.optimizers.SGD(0.25, momentum=0.5))
    loaded = kerasrl.load(ppo.save(tmp_path / "agent.kerasrl"))
    assert loaded.policy.optimizer.get_config()["momentum"] == 0.5
    assert int(loaded.policy.optimizer.iterations) == 0
    ppo.compile(jit_compile=False)


def test_layers_that_are_frozen_later_stay_as_they_are(ppo):
    layer = next(x for x in ppo.policy.layers if x.trainable_variables)
    layer.trainable = False
    before = layer.get_weights()
    ppo.compile(jit_compile=False)
    train(ppo)
    layer.trainable = True
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    ppo.compile(jit_compile=False)
    train(ppo)
    assert not np.array_equal(before[0], layer.get_weights()[0])


class Change(keras.callbacks.Callback):
    """Sets an argument while `fit` runs, and keeps what that raised."""

    def __init__(self, agent, name, value):
        super().__init__()
        self.agent, self.name, self.value = agent, name, value
        self.error = None

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            try:
                setattr(self.agent, self.name, self.value)
            except ValueError as error:
                self.error = str(error)


def test_lengths_of_iterations_cannot_change_while_fit_runs(ppo):
    callback = Change(ppo, "rollout_length", 8)
    ppo.fit("CartPole-v1", 96, num_envs=2, callbacks=callback, verbose=0)
    assert "while fit runs" in callback.error and ppo.rollout_length == 16


def test_rewards_are_scaled_from_then_on(ppo):
    callback = Change(ppo, "normalize_rewards", True)
    ppo.fit("CartPole-v1", 96, num_envs=2, callbacks=callback, verbose=0)
    assert callback.error is None and ppo.reward_scaler.count == 64
    ppo.gamma = 0.5
    assert ppo.reward_scaler.gamma == 0.5
    ppo.normalize_rewards, ppo.gamma = False, 0.99
    assert ppo.reward_scaler is None


def test_a_policy_can_be_chosen_until_it_has_weights():
    agent = kerasrl.PPO()
    agent.policy = {"hidden_units": (4,)}
    assert agent.policy.hidden_units == (4,)


def test_a_policy_that_is_chosen_later_is_compiled_as_was_asked():
    agent, optimizer = kerasrl.PPO(), keras.optimizers.SGD(0.5)
    agent.compile(optimizer, run_eagerly=True)
    agent.policy = {"hidden_units": (4,)}
    assert agent.policy.optimizer is optimizer and agent.policy.run_eagerly
    compiled = kerasrl.models.ActorCritic(hidden_units=(4,))
    compiled.compile("adam")
    agent.policy = compiled
    assert agent.policy.optimizer is not optimizer


@pytest.mark.parametrize("algorithm", among(["DQN", "R2D2"], ["DQN"]))
def test_an_empty_buffer_is_made_anew(algorithm):
    agent = make(algorithm)
    agent.fit("CartPole-v1", steps=32, num_envs=2, verbose=0)
    with pytest.raises(ValueError, match="agent.buffer = None"):
        agent.buffer_size = 300
    agent.buffer = None
    agent.buffer_size = 300
    agent.fit("CartPole-v1", steps=16, num_envs=2, verbose=0)
    assert agent.buffer.capacity == 300


@keras.saving.register_keras_serializable("test_hyperparameters")
class Mine(kerasrl.PPO):
    """An agent of one's own: one argument that is checked, one that is not."""

    kinds = {"bound": Hyperparameter(checks.positive)}

    def __init__(self, bound=1.0, push=0.0, **kwargs):
        super().__init__(**kwargs)
        self.bound, self.push = bound, push

    def loss(self, batch, outputs, settings):
        loss, metrics = super().loss(batch, outputs, settings)
        return loss, {**metrics, "bound_now": self.bound, "push_now": self.push}


class Pushed(Mine):
    """Its acting depends on an argument too."""

    def act(self, inputs, deterministic):
        outputs = super().act(inputs, deterministic)
        return {**outputs, "actions": outputs["actions"] * int(self.push == 0.0)}


def test_arguments_of_ones_own_take_effect_as_well():
    agent = Mine(rollout_length=4, num_epochs=1, minibatch_size=8)
    agent.compile(run_eagerly=True)

    def fit(**arguments):
        history = agent.fit("CartPole-v1", 24, num_envs=2, verbose=0, **arguments)
        return [history.history[f"{name}_now"][-1] for name in ("bound", "push")]

    assert fit() == [1.0, 0.0]
    agent.bound, agent.push = 2.0, 3.0
    assert fit() == [2.0, 3.0]
    with pytest.raises(ValueError, match="bound"):
        agent.bound = -1.0
    assert fit(callbacks=Change(agent, "push", 6.0)) == [2.0, pytest.approx(5.0)]


class Forgetful(kerasrl.A2C):
    """Keeps an argument elsewhere, as nothing that relies on it would find it."""

    def __init__(self, extra=1, **kwargs):
        super().__init__(**kwargs)
        self._extra = extra


def test_an_argument_that_is_not_kept_is_refused():
    with pytest.raises(TypeError, match=r"self\.extra = extra"):
        Forgetful().fit("CartPole-v1", 10, num_envs=2, verbose=0)


def test_acting_of_ones_own_is_compiled_again_with_what_it_may_depend_on():
    agent = Pushed(rollout_length=4, num_epochs=1, minibatch_size=8)
    agent.compile(run_eagerly=True)
    callback = Change(agent, "push", 1.0)
    agent.fit("CartPole-v1", 24, num_envs=2, verbose=0, callbacks=callback)
    assert "while fit runs" in callback.error
    observations = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    chosen = agent.predict(observations, deterministic=False, seed=0)
    assert chosen.any()
    agent.push = 1.0
    assert not agent.predict(observations, deterministic=False, seed=0).any()


@pytest.mark.parametrize("value", [_NAN, _INF, -0.1, "high", None])
@pytest.mark.parametrize("name", ["clip_ratio", "entropy_coef"])
def test_schedules_that_give_no_number_are_refused_with_name_and_step(name, value, ppo):
    setattr(ppo, name, lambda progress: 0.1 if progress < 0.5 else value)
    with pytest.raises(ValueError, match=f"{name} gave .*env_steps={ppo.env_steps}"):
        ppo.progress = 0.5
        current(ppo, name)
    with pytest.raises(ValueError, match=name):
        ppo.fit("CartPole-v1", steps=64, num_envs=2, verbose=0)
    setattr(ppo, name, 0.1)


def test_a_schedule_may_end_in_zero_but_probabilities_stay_below_one(ppo):
    ppo.clip_ratio = schedules.PolynomialDecay(0.2, 10, 0.0)
    assert current(ppo, "clip_ratio") == 0.0
    ppo.clip_ratio = 0.2
    agent = kerasrl.DQN(exploration=schedules.PolynomialDecay(1.5, 10, 1.5))
    with pytest.raises(ValueError, match="exploration gave 1.5"):
        current(agent, "exploration")


@pytest.mark.parametrize(
    ("algorithm", "least"), [("SAC", math.log(2.0)), ("SAC_discrete", math.log(2.0))]
)
def test_entropies_that_no_policy_has_are_refused(algorithm, least):
    agent = make(algorithm, target_entropy=least + 0.01)
    with pytest.raises(ValueError, match="target_entropy"):
        agent.fit(env_of(algorithm), steps=2, verbose=0)
    agent = make(algorithm, target_entropy="auto")
    assert agent.target_entropy is None


def test_an_entropy_that_nothing_is_adjusted_to_is_refused():
    with pytest.raises(ValueError, match="adjust_temperature=False"):
        kerasrl.SAC(target_entropy=-1.0, adjust_temperature=False)


def test_temperatures_and_targets_of_the_entropy():
    agent = make("SAC")
    agent.fit("Pendulum-v1", steps=2, num_envs=2, verbose=0)
    agent.temperature = 0.25
    assert float(agent.log_temperature.value) == pytest.approx(math.log(0.25))
    assert agent.wanted_entropy() == -1.0
    agent.target_entropy = -2.0
    assert agent.wanted_entropy() == -2.0
    with pytest.raises(ValueError, match="No policy"):
        agent.target_entropy = 1.0
    assert agent.target_entropy == -2.0
