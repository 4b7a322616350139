"""Models by name: registered, given to agents, kept in checkpoints."""

import re

import gymnasium
import keras
import numpy as np
import pytest

import kerasrl
from kerasrl.models import CNN, MLP, ActorCritic, ImpalaCNN, Policy, by_name
from kerasrl.names import Names

CARTPOLE = (gymnasium.spaces.Box(-1, 1, (4,)), gymnasium.spaces.Discrete(2))


class Wide(keras.layers.Layer):
    def __init__(self, width=8, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(width)
        self.width = width

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


class Twice(ActorCritic):
    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(by_name.MODELS, "_known", dict(by_name.MODELS._known))
    kerasrl.register_model("wide", Wide)
    kerasrl.register_model("twice", Twice)
    kerasrl.register_model("small", lambda width=3: MLP((width,)))


def policies():
    yield "wide", Wide, 8
    yield {"model": "wide", "model_config": {"width": 5}}, Wide, 5
    yield {"trunk": "wide", "cell": "lstm", "cell_units": 3}, Wide, 8
    yield {"trunk": {"model": "wide", "model_config": {"width": 5}}}, Wide, 5
    yield {"model": "wide", "cell": "gru"}, Wide, 8
    yield "impala", ImpalaCNN, None
    yield {"trunk": "nature"}, CNN, None
    yield "small", MLP, None
    yield {"trunk": {"model": "small", "model_config": {"width": 2}}}, MLP, None


@pytest.mark.parametrize(("policy", "trunk", "width"), list(policies()))
def test_trunks(policy, trunk, width):
    for agent in (kerasrl.PPO, kerasrl.DQN, kerasrl.SAC):
        if agent is kerasrl.SAC and "cell" in policy:
            continue
        made = agent(policy=policy).policy
        assert type(made) is agent.default_policy and type(made.trunk) is trunk
        if width is not None:
            assert made.trunk.width == width
        assert getattr(made, "cell", None) == (
            policy.get("cell") if isinstance(policy, dict) else None
        )


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("PPO", "mlp"),
        ("PPO", {"trunk": "mlp", "shared_trunk": False}),
        ("DQN", "small"),
        ("DQN", "given"),
        ("SAC", {"trunk": "mlp"}),
    ],
)
def test_trunks_have_the_seed_of_the_agent(name, policy):
    weights = []
    for seed in (0, 0, 1):
        given = {"trunk": MLP()} if policy == "given" else policy
        agent = getattr(kerasrl, name)(policy=given, seed=seed)
        agent.build(*CARTPOLE)
        weights.append(agent.get_weights())
        if name == "SAC":
            kernels = [
                trunk.hidden_layers[0].kernel
                for trunk in (agent.policy.policy_trunk, agent.policy.critic_trunk)
            ]
            assert not np.array_equal(*kernels)
        elif "shared_trunk" in policy:
            kernels = [x.hidden_layers[0].kernel for x in agent.policy.trunks.values()]
            assert not np.array_equal(*kernels)
    first, again, other = weights
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert any(
        not np.array_equal(one, two) for one, two in zip(first, other, strict=True)
    )


@pytest.mark.parametrize("name", ["impala", "nature"])
def test_trunks_for_images_have_it_too(name):
    config = {"hidden_units": (4,)}
    config |= {"channels": (2,)} if name == "impala" else {"filters": [(2, 3, 2)]}
    space = gymnasium.spaces.Box(0, 255, (12, 12, 1), np.uint8)
    weights = []
    for _ in range(2):
        policy = {"model": name, "model_config": config}
        agent = kerasrl.A2C(policy=policy, seed=0)
        agent.build(space, CARTPOLE[1])
        weights.append(agent.get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_whole_policies():
    assert kerasrl.A2C(policy="twice").policy.factor == 2.0
    made = {"model": "twice", "model_config": {"factor": 3.0}}
    assert type(kerasrl.A2C(policy=made).policy) is Twice
    assert kerasrl.A2C(policy=made).policy.factor == 3.0
    described = {"model": "q_network", "model_config": {"num_quantiles": 3}}
    assert kerasrl.CQL(policy=described).policy.num_quantiles == 3


@pytest.mark.parametrize(
    ("agent", "policy", "error", "message"),
    [
        ("PPO", "wied", ValueError, "Unknown model 'wied'. Did you mean 'wide'"),
        (
            "PPO",
            "qqq",
            ValueError,
            "impala, mlp, nature, .*small, twice, wide.*regist",
        ),
        ("PPO", {"trunk": "qqq"}, ValueError, "Unknown model 'qqq'.*impala"),
        ("DQN", "twice", TypeError, "is a Twice.*from kerasrl.models.QFunction"),
        ("SAC", "twice", TypeError, "from kerasrl.models.ActionValuePolicy"),
        ("PPO", {"model_config": {}}, ValueError, "a name under 'model'"),
        ("PPO", {"model": "wide", "model_config": 3}, ValueError, "dict of arguments"),
        ("PPO", {"model": "twice", "factor": 1}, ValueError, "factor.*model_config"),
        ("PPO", {"trunk": {"mode": "wide"}}, ValueError, "key 'mode'"),
        ("PPO", {"model": "wide", "hidden_units": [3]}, ValueError, "both a trunk"),
        ("PPO", {"trunk": "twice"}, TypeError, "a Twice.*whole policy.*policy="),
        ("PPO", "broken", TypeError, "returned 3. Expected.*kerasrl.models.Policy"),
    ],
)
def test_what_cannot_be(agent, policy, error, message):
    kerasrl.register_model("broken", lambda: 3)
    with pytest.raises(error, match=f"(?s){message}"):
        getattr(kerasrl, agent)(policy=policy)


@pytest.mark.parametrize("model", [dict, gymnasium.Env, 3, "wide", MLP()])
def test_only_models_are_registered(model):
    with pytest.raises(TypeError, match=r"kerasrl\.models\.Policy, or of keras\.Layer"):
        kerasrl.register_model("other", model)


@pytest.mark.parametrize("name", ["", None, 3])
def test_names_are_texts(name):
    with pytest.raises(TypeError, match="non-empty string"):
        kerasrl.register_model(name, lambda: MLP())


@pytest.mark.parametrize("policy", ["wide", "small", "twice", {"trunk": "wide"}])
def test_checkpoints_hold_names(policy, tmp_path):
    agent = kerasrl.A2C(policy=policy, seed=0)
    agent.build(*CARTPOLE)
    path = agent.save(tmp_path / "agent")
    loaded = kerasrl.load(path)
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    inputs = {**agent.policy.example_inputs(5), "observations": observations}
    for name, value in agent.policy(inputs).items():
        np.testing.assert_array_equal(value, loaded.policy(inputs)[name])


def test_a_checkpoint_of_what_is_not_registered_here(tmp_path, monkeypatch):
    class Local(Wide):
        pass

    kerasrl.register_model("local", Local)
    assert keras.saving.get_registered_name(Local) == "models>local"
    agent = kerasrl.A2C(policy="local")
    agent.build(*CARTPOLE)
    path = agent.save(tmp_path / "agent")
    monkeypatch.delitem(keras.saving.get_custom_objects(), "models>local")
    with pytest.raises(ValueError, match="models>local.*not registered here"):
        kerasrl.load(path)


def test_a_class_that_keras_knows_keeps_its_name():
    kerasrl.register_model("mine", MLP)
    assert keras.saving.get_registered_name(MLP) == "kerasrl>MLP"


def test_names():
    names = Names("thing", "register_thing", b=1)
    names.add("a", 2)
    assert list(names) == ["a", "b"] and "a" in names and names.find("a") == 2
    with pytest.raises(ValueError, match=re.escape("'c'. Expected one of: a, b.")):
        names.find("c")
    names.add("b", 1)
    with pytest.raises(ValueError, match="built-in thing 'b'"):
        names.add("b", 3)
    assert names.find("b") == 1


def test_built_in_names_are_not_given_to_others():
    class Other(kerasrl.distributions.Categorical):
        pass

    with pytest.raises(ValueError, match="built-in model 'nature'"):
        kerasrl.register_model("nature", Wide)
    with pytest.raises(ValueError, match="built-in distribution 'Categorical'"):
        kerasrl.register_distribution("Categorical", Other)
    with pytest.raises(ValueError, match="built-in preprocessor 'action_mask'"):
        kerasrl.register_preprocessor("action_mask", gymnasium.Wrapper)
    assert issubclass(Twice, Policy)
