"""Built-in layers and policies are made again from the arguments of `__init__`."""

import inspect

import gymnasium
import keras
import pytest

import kerasrl
from kerasrl import models
from kerasrl.models.batched_dense import BatchedDense
from kerasrl.models.configured import Configured

BUILT_IN = {
    "MLP": lambda: models.MLP((3,), keras.activations.elu, "normc", seed=1),
    "CNN": lambda: models.CNN([(4, 3, 1)], (3,), "elu", keras.initializers.HeNormal()),
    "MixedTrunk": lambda: models.MixedTrunk([(4, 3, 1)], (3,), seed=1),
    "NoisyDense": lambda: models.NoisyDense(2, "elu", 0.3, seed=1),
    "BatchedDense": lambda: BatchedDense(2, 3, "elu", "normc", 2.0, seed=1),
    "RunningNormalization": lambda: models.RunningNormalization(5.0, 1e-3),
    "ActorCritic": lambda: models.ActorCritic(
        hidden_units=(3,), activation="elu", cell="gru", initial_log_std=-1.0
    ),
    "with a distribution": lambda: models.ActorCritic(
        distribution={"move": "TanhGaussian", "rest": ["DiagonalGaussian", None]}
    ),
    "autoregressive": lambda: models.ActorCritic(
        autoregressor=models.MADE((3,), "elu")
    ),
    "MADE": lambda: models.MADE((3, 2), "elu", 5, "normc", seed=1),
    "QNetwork": lambda: models.QNetwork(
        models.MLP((3,)), num_atoms=3, v_min=0, v_max=1
    ),
    "SoftActorCritic": lambda: models.SoftActorCritic(
        hidden_units=(3,), initial_log_std=-1.0, kernel_initializer=models.Normc(0.5)
    ),
    "DeterministicActorCritic": lambda: models.DeterministicActorCritic(num_critics=1),
}


@pytest.mark.parametrize("make", BUILT_IN.values(), ids=BUILT_IN)
def test_configs_have_all_arguments_and_make_the_same_again(make):
    made = make()
    config = keras.saving.serialize_keras_object(made)
    assert set(inspect.signature(type(made)).parameters) - {"kwargs"} <= set(
        config["config"]
    )
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(made)
    assert keras.saving.serialize_keras_object(again) == config


@keras.saving.register_keras_serializable("configured")
class Extended(models.ActorCritic):
    def __init__(self, margin=0.1, head=None, **kwargs):
        super().__init__(**kwargs)
        self.margin, self.head = margin, head


@keras.saving.register_keras_serializable("configured")
class SpeaksForItself(Extended):
    """Keeps its own argument in its own way, and says so."""

    def __init__(self, scales=(), **kwargs):
        super().__init__(**kwargs)
        self.scales = dict(scales)

    def get_config(self):
        return {**super().get_config(), "scales": list(self.scales.items())}


@keras.saving.register_keras_serializable("configured")
class Keeps(SpeaksForItself):
    """Its arguments are beyond a `get_config` of another's."""

    def __init__(self, extra=1, **kwargs):
        super().__init__(**kwargs)
        self.extra = extra


def test_a_subclass_need_not_define_get_config(tmp_path):
    policy = Extended(
        margin=0.4,
        head=keras.initializers.Constant(2.0),
        hidden_units=(3,),
        activation="relu",
    )
    agent = kerasrl.A2C(policy)
    env = gymnasium.make("CartPole-v1")
    agent.build(env.observation_space, env.action_space)
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl")).policy
    assert (loaded.margin, loaded.head.value) == (0.4, 2.0)
    assert (loaded.hidden_units, loaded.activation) == ((3,), "relu")


def test_a_get_config_speaks_for_its_class_and_the_classes_below():
    assert "margin" in SpeaksForItself._arguments()
    policy = Keeps(scales=[("a", 2.0)], margin=0.4, extra=3)
    config = policy.get_config()
    assert config["scales"] == [("a", 2.0)] and config["margin"] == 0.4
    assert "extra" not in config


def test_what_is_not_kept_is_left_out():
    class Forgets(Configured, keras.layers.Layer):
        def __init__(self, factor=1.0, **kwargs):
            super().__init__(**kwargs)

    assert "factor" not in Forgets(2.0).get_config()
