"""What is loaded is what was saved, or saving is refused before training."""

import random

import gymnasium
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kerasrl
from kerasrl import checkpoint

register = keras.saving.register_keras_serializable("rebuilding")


class Arguments:
    """Keeps what subclasses are made with; some say so in `get_config`."""

    says = ()

    def get_config(self):
        config = super().get_config()
        return {**config, **{name: getattr(self, name) for name in self.says}}


class _Trunk:
    def __init__(self, units=4, activation="relu", penalty=0.1, **kwargs):
        super().__init__(**kwargs)
        self.units, self.activation, self.penalty = units, activation, penalty
        self.inner = keras.layers.Dense(units, activation)

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        features = self.inner(inputs)
        self.add_loss(self.penalty * keras.ops.mean(keras.ops.square(features)))
        return features


@register
class SilentModel(_Trunk, keras.Model):
    pass


@register
class SilentLayer(_Trunk, keras.layers.Layer):
    pass


@register
class PartialModel(Arguments, _Trunk, keras.Model):
    says = ("units", "activation")


@register
class PartialLayer(Arguments, _Trunk, keras.layers.Layer):
    says = ("units", "penalty")


@register
class HidingModel(keras.Model):
    """Keeps its arguments under other names, or in its layers only."""

    def __init__(self, units=4, activation="relu", penalty=0.1):
        super().__init__()
        self._weight_of_it = penalty
        self.inner = keras.layers.Dense(
            units, activation, kernel_regularizer=keras.regularizers.L2(penalty)
        )

    def call(self, inputs):
        return self.inner(inputs)


@register
class CompleteModel(Arguments, _Trunk, keras.Model):
    says = ("units", "activation", "penalty")


@register
class CompleteLayer(Arguments, _Trunk, keras.layers.Layer):
    says = ("units", "activation", "penalty")


@register
class SilentPolicy(kerasrl.models.Policy):
    def __init__(self, units=4, activation="relu", penalty=0.1, **kwargs):
        super().__init__(**kwargs)
        self.penalty = penalty
        self.hidden = keras.layers.Dense(units, activation)
        self.value = keras.layers.Dense(1)

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.head = keras.layers.Dense(self.num_parameters)

    def call(self, inputs, state=None, training=False):
        features = self.hidden(inputs["observations"])
        values = keras.ops.squeeze(self.value(features), -1)
        return {"distribution": self.head(features), "values": values}


class _Extended:
    def __init__(self, units=4, activation="relu", penalty=0.1, **kwargs):
        kwargs.setdefault("hidden_units", (units,))
        super().__init__(activation=activation, **kwargs)
        self.units, self.penalty = units, penalty


@register
class ExtendedPolicy(_Extended, kerasrl.models.ActorCritic):
    """Says nothing, and need not."""


@register
class PartialPolicy(_Extended, Arguments, kerasrl.models.ActorCritic):
    says = ("units",)


@register
class CompletePolicy(PartialPolicy):
    says = ("units", "penalty")


@register
class SilentOptimizer(keras.optimizers.SGD):
    def __init__(self, learning_rate=0.1, penalty=0.1, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.penalty = penalty


@register
class CompleteOptimizer(Arguments, SilentOptimizer):
    says = ("penalty",)


@register
class PartialSchedule(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, first=0.1, penalty=0.1):
        self.first, self.penalty = first, penalty

    def __call__(self, step):
        return self.first * self.penalty

    def get_config(self):
        return {"first": self.first}


@register
class CompleteSchedule(PartialSchedule):
    def get_config(self):
        return {"first": self.first, "penalty": self.penalty}


@register
class PartialAgent(kerasrl.A2C):
    def __init__(self, policy=None, penalty=0.1, **kwargs):
        super().__init__(policy, **kwargs)
        self.penalty = 2.0 * penalty


def in_sequence(trunk):
    return keras.Sequential([keras.layers.Dense(3), trunk])


TRUNKS = (
    *(SilentModel, SilentLayer, PartialModel, PartialLayer),
    *(HidingModel, CompleteModel, CompleteLayer),
)
POLICIES = (SilentPolicy, ExtendedPolicy, PartialPolicy, CompletePolicy)
COMPLETE = (
    *(CompleteModel, CompleteLayer, SilentLayer),
    *(CompletePolicy, ExtendedPolicy, SilentPolicy),
    *(CompleteOptimizer, CompleteSchedule),
)
SPACES = [
    getattr(gymnasium.make("CartPole-v1"), f"{n}_space")
    for n in ("observation", "action")
]
SMALL = {"hidden_units": (2,)}


def make_agent(cls, place, arguments):
    """An agent with an object of a class somewhere in it, and how to find that."""
    if cls in TRUNKS:
        trunk = cls(**arguments)
        if place == "in a model":
            return kerasrl.A2C(in_sequence(trunk)), lambda a: a.policy.trunk.layers[1]
        return kerasrl.A2C(trunk), lambda a: a.policy.trunk
    if cls in POLICIES:
        return kerasrl.A2C(cls(**arguments)), lambda a: a.policy
    penalty = {"penalty": arguments.get("penalty", 0.1)}
    if cls in (SilentOptimizer, CompleteOptimizer):
        agent = kerasrl.A2C(SMALL)
        agent.compile(cls(**penalty))
        return agent, lambda a: a.policy.optimizer
    if cls is PartialAgent:
        return cls(SMALL, **penalty), lambda a: a
    if place == "in a model":
        agent = kerasrl.A2C(SMALL)
        agent.compile(keras.optimizers.SGD(cls(**penalty)))
        return agent, lambda a: a.policy.optimizer._learning_rate
    return kerasrl.A2C(SMALL, entropy_coef=cls(**penalty)), lambda a: a.entropy_coef


ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "units": st.sampled_from((3, 4)),
        "activation": st.sampled_from(("relu", "tanh")),
        "penalty": st.sampled_from((0.1, 0.5)),
    },
)


@register
class PartialRegularizer(keras.regularizers.Regularizer):
    def __init__(self, penalty=0.1):
        self.penalty = penalty

    def __call__(self, values):
        return self.penalty * keras.ops.sum(values)

    def get_config(self):
        return {}


def with_schedule():
    agent = kerasrl.A2C(SMALL)
    agent.compile(keras.optimizers.SGD(PartialSchedule(penalty=0.5)))
    return agent


def with_regularizer(name):
    layer = keras.layers.Dense(3, **{name: PartialRegularizer(penalty=0.5)})
    return kerasrl.A2C(keras.Sequential([layer]))


@pytest.mark.parametrize(
    "make",
    [
        with_schedule,
        lambda: with_regularizer("activity_regularizer"),
        lambda: with_regularizer("kernel_regularizer"),
    ],
)
def test_what_keras_keeps_of_ones_own_is_compared_too(make):
    agent = make()
    agent.build(*SPACES)
    with pytest.raises(ValueError, match="penalty is 0.5, and comes back as 0.1"):
        agent.check_savable("nowhere")


@settings(max_examples=10, deadline=None)
@given(
    cls=st.sampled_from(
        (
            *(*TRUNKS, *POLICIES, SilentOptimizer, CompleteOptimizer),
            *(PartialSchedule, CompleteSchedule, PartialAgent),
        )
    ),
    place=st.sampled_from(("alone", "in a model")),
    arguments=ARGUMENTS,
)
def test_a_class_of_ones_own_comes_back_or_is_refused(
    tmp_path_factory, cls, place, arguments
):
    agent, find = make_agent(cls, place, arguments)
    agent.build(*SPACES)
    path = tmp_path_factory.mktemp("run") / "agent.kerasrl"
    try:
        agent.check_savable(path)
    except ValueError as error:
        assert cls not in COMPLETE, "refused although it is complete"
        assert "get_config" in str(error) and cls.__name__ in str(error)
        assert len(str(error)) < 900
        with pytest.raises(ValueError, match="get_config"):
            agent.save(path)
        assert not path.exists()
        return
    loaded = kerasrl.load(agent.save(path))
    left, right = find(agent), find(loaded)
    assert type(left) is type(right) is cls
    for name in ("units", "activation", "penalty"):
        assert getattr(left, name, None) == getattr(right, name, None)
    if isinstance(left, HidingModel):
        assert left._weight_of_it == right._weight_of_it
    observations = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    for a, b in zip(
        *(x.policy({"observations": observations}).values() for x in (agent, loaded)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "callback",
    [
        lambda path: kerasrl.callbacks.AgentCheckpoint(path),
        lambda path: kerasrl.callbacks.PeriodicEvaluation(
            "CartPole-v1", best_path=path / "best.kerasrl"
        ),
    ],
)
def test_it_is_refused_before_training(tmp_path, callback):
    agent = kerasrl.A2C(PartialPolicy(penalty=0.5))
    message = "policy.penalty is 0.5, and comes back as 0.1. Define get_config of Part"
    with pytest.raises(ValueError, match=message):
        agent.fit("CartPole-v1", steps=40, callbacks=[callback(tmp_path)], verbose=0)
    assert agent.iterations == 0
    assert not list(tmp_path.iterdir())


def test_training_without_saving_is_not_refused():
    agent = kerasrl.A2C(PartialPolicy(penalty=0.5))
    agent.compile(run_eagerly=True)
    agent.fit("CartPole-v1", steps=10, num_envs=2, verbose=0)


def test_comparing_moves_nothing():
    """Neither weights nor random numbers know of it."""

    def run(compares):
        keras.utils.set_random_seed(0)
        agent = kerasrl.DQN.rainbow(policy=SMALL, num_atoms=3)
        agent.build(*SPACES)
        if compares:
            agent.check_savable("nowhere")
        draws = random.random(), np.random.random()
        variables = [np.asarray(v) for _, v in checkpoint.variables(agent)]
        return draws, variables, float(keras.random.uniform(()))

    (draws, variables, last), (others, moved, other) = run(False), run(True)
    assert draws == others and last == other
    for left, right in zip(variables, moved, strict=True):
        np.testing.assert_array_equal(left, right)


@register
class ModelInside(keras.layers.Layer):
    """Makes a functional model and a sequential one, which Keras gives names."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = keras.Sequential(
            [keras.layers.Dense(units), keras.layers.Dropout(0.5)]
        )

    def build(self, input_shape):
        inputs = keras.Input((self.units,))
        self.second = keras.Model(inputs, keras.layers.Dense(self.units)(inputs))

    def call(self, inputs, training=False):
        return self.second(self.first(inputs, training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pytest.mark.parametrize("agent_class", [kerasrl.A2C, kerasrl.DQN])
def test_models_inside_of_layers_are_not_refused(tmp_path, agent_class):
    """However they were called first, and whatever Keras has named them."""
    trunk = in_sequence(ModelInside())
    trunk(np.zeros((5, 4), "float32"), training=True)
    agent = agent_class(trunk)
    agent.build(*SPACES)
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    inside = [a.policy.trunk.layers[1] for a in (agent, loaded)]
    assert len({id(layer) for layer in inside}) == 2
    inputs = {"observations": np.ones((2, 4), "float32")}
    for a, b in zip(*(x.policy(inputs).values() for x in (agent, loaded)), strict=True):
        np.testing.assert_array_equal(a, b)


@register
class LogVariance(keras.layers.Layer):
    """Has a weight whose name ends as that of something never negative does."""

    def build(self, input_shape):
        self.log_variance = self.add_weight(
            name="log_variance", initializer=keras.initializers.Constant(-1.0)
        )

    def call(self, inputs):
        return inputs * keras.ops.exp(self.log_variance)


@register
class Directed(keras.optimizers.SGD):
    """Keeps a velocity that is one, with a sign, and takes no learning rate."""

    def __init__(self, speed=0.1):
        super().__init__(speed)
        self.speed = speed

    def build(self, variables):
        super().build(variables)
        self.velocities = self.add_optimizer_variables(
            variables, "velocity", initializer=keras.initializers.Constant(-1.0)
        )

    def get_config(self):
        return {"speed": self.speed}


@register
class Undetermined(keras.layers.Layer):
    """Draws what no generator of Keras's draws."""

    def call(self, inputs):
        return inputs + np.random.normal(size=inputs.shape[-1:]).astype("float32")


@register
class Counting(kerasrl.DQN):
    """Has state that only training makes."""

    counts = None

    def get_state(self):
        return {**super().get_state(), "counts": self.counts.tolist()}

    def set_state(self, state, arrays):
        super().set_state(state, arrays)
        self.counts = np.array(state["counts"])


def test_what_classes_of_ones_own_keep_is_their_business(tmp_path):
    agent = Counting(in_sequence(LogVariance()))
    agent.compile(Directed())
    agent.build(*SPACES)
    agent.counts = np.arange(3)
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    np.testing.assert_array_equal(loaded.counts, [0, 1, 2])
    for (name, left), (_, right) in zip(
        *(checkpoint.variables(each) for each in (agent, loaded)), strict=True
    ):
        np.testing.assert_array_equal(left, right, err_msg=name)


def test_layers_that_are_random_on_their_own_are_not_refused(tmp_path):
    agent = kerasrl.A2C(in_sequence(Undetermined()))
    agent.build(*SPACES)
    kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))


def test_an_optimizer_without_a_learning_rate_serves_several_parts():
    agent = kerasrl.SAC(SMALL)
    agent.compile(Directed(0.25))
    agent.build(*SPACES)
    rates = [float(each.learning_rate) for each in agent.optimizers.values()]
    assert rates == [0.25] * 3


@pytest.mark.parametrize(
    # Without compiling again, optimizers refuse variables they were not made for.
    ("agent_class", "freezes", "recompiles"),
    [
        (kerasrl.A2C, True, False),
        (kerasrl.DQN, False, True),
        pytest.param(kerasrl.A2C, False, True, marks=pytest.mark.slow),
        pytest.param(kerasrl.DQN, True, True, marks=pytest.mark.slow),
        pytest.param(kerasrl.DQN, True, False, marks=pytest.mark.slow),
    ],
)
def test_layers_frozen_in_between_are_saved_and_resume_exactly(
    tmp_path, agent_class, recompiles, freezes
):
    """Optimizers and target networks have variables of what was trained before."""

    def make():
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(3), keras.layers.Dense(4)]
        layers[0].trainable = freezes
        options = {"learning_starts": 8, "batch_size": 4}
        agent = agent_class(
            keras.Sequential(layers),
            seed=1,
            **({} if agent_class is kerasrl.A2C else options),
        )
        agent.compile(run_eagerly=True)
        fit(agent)
        trunk = agent.policy.trunk
        trunk.layers[0].trainable = not freezes
        if recompiles:
            agent.compile(run_eagerly=True)
        return agent

    def fit(agent):
        agent.fit("CartPole-v1", steps=16, num_envs=2, verbose=0)

    straight, saved = make(), make()
    loaded = kerasrl.load(saved.save(tmp_path / "agent.kerasrl"))
    for _ in range(2):
        for agent in (straight, loaded):
            fit(agent)
        for (name, left), (_, right) in zip(
            *(checkpoint.variables(each) for each in (straight, loaded)), strict=True
        ):
            np.testing.assert_array_equal(left, right, err_msg=name)
        path = loaded.save(tmp_path / "again.kerasrl")
        loaded = kerasrl.load(path)
    if agent_class is not kerasrl.A2C:
        assert straight.target.covers(straight.target_sources())


def test_an_optimizer_compiled_just_before_is_saved(tmp_path):
    """Not the state of the one before it."""
    agent = kerasrl.SAC(SMALL)
    agent.build(*SPACES)
    agent.compile(keras.optimizers.SGD(0.5))
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    for name, optimizer in loaded.optimizers.items():
        assert isinstance(optimizer, keras.optimizers.SGD), name
    assert float(loaded.policy.optimizer.learning_rate) == 0.5
