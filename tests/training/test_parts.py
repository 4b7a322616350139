"""Algorithms made of functions: replaced, checked when built, kept by name."""

import re

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf
from daily import among
from gymnasium import spaces

import kerasrl
from kerasrl.checkpoint.weights import variables as all_variables
from kerasrl.training import critics, parts

_ENV = gymnasium.make("CartPole-v1")
SPACES = (_ENV.observation_space, _ENV.action_space)
SMALL = {"policy": {"hidden_units": (4,)}, "seed": 0}
ON = {**SMALL, "rollout_length": 8}
OFF = {**SMALL, "learning_starts": 8, "batch_size": 4, "buffer_size": 100}


def weighted_loss(agent, batch, outputs, settings):
    loss, metrics = kerasrl.A2C.loss(agent, batch, outputs, settings)
    size = keras.ops.mean(keras.ops.square(outputs["values"]))
    return loss + agent.value_decay * size, {**metrics, "value_size": size}


def signs(agent, gradients, variables):
    assert len(gradients) == len(variables)
    return [keras.ops.sign(gradient) for gradient in gradients]


def sizes(agent, batch, outputs, settings):
    return {"reward_size": keras.ops.mean(keras.ops.abs(batch["rewards"]))}


def clip_weights(agent, batch):
    for variable in agent.policy.trainable_variables:
        variable.assign(keras.ops.clip(variable, -0.01, 0.01))


def reinforce(agent, batch, outputs, settings):
    log_probs = agent.policy.distribution(outputs).log_prob(batch["actions"])
    return kerasrl.losses.policy_gradient(log_probs, batch["returns"], batch["mask"])


def regress(agent, batch, outputs, settings):
    chosen = keras.ops.take_along_axis(
        outputs["q_values"], batch["actions"][:, None], axis=1
    )[:, 0]
    errors = batch["rewards"] - chosen
    loss = keras.ops.mean(keras.ops.square(errors))
    return loss, {"q_value": keras.ops.mean(chosen), "td_errors": errors}


def misspelt(agent, batch, outputs, settings):
    return keras.ops.sum(batch["advantage"]), {}


def misspelt_targets(agent, rollout):
    return {"returns": rollout["reward"]}


def misspelt_metrics(agent, batch, outputs, settings):
    return {"x": keras.ops.mean(outputs["value"])}


def own_targets(agent, rollout):
    return {**kerasrl.PPO.targets(agent, rollout), "bonus": rollout["rewards"]}


def plain_sgd(agent):
    return keras.optimizers.SGD(1.0)


@pytest.fixture(autouse=True)
def unregistered():
    before = dict(keras.saving.get_custom_objects())
    yield
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(before)


def fit(agent, steps=16, env="CartPole-v1"):
    if not agent.policy.compiled:
        agent.compile(run_eagerly=True)
    return agent.fit(env, steps=steps, num_envs=2, verbose=0).history


def test_a_class_is_made_and_takes_new_hyperparameters():
    made = kerasrl.A2C.with_updates(
        "Weighted",
        loss=weighted_loss,
        metrics=sizes,
        defaults={"gamma": 0.9, "value_decay": 1e-3},
    )
    assert made.__name__ == "Weighted" and issubclass(made, kerasrl.A2C)
    assert set(made.hyperparameters()) == {
        *kerasrl.A2C.hyperparameters(),
        "value_decay",
    }
    agent = made(**ON)
    assert (agent.gamma, agent.value_decay) == (0.9, 1e-3)
    assert made(gamma=0.8, value_decay=1.0).get_config()["value_decay"] == 1.0
    assert made(None, 64).rollout_length == 64
    with pytest.raises(TypeError, match="Did you mean 'value_decay'"):
        made(value_deca=1.0)
    logs = fit(agent)
    assert {"value_size", "reward_size", "loss", "gradient_norm"} <= set(logs)
    assert logs["reward_size"] == [1.0]


def test_gradients_are_changed_and_weights_after_the_step():
    made = kerasrl.A2C.with_updates(
        "Signs", gradients=signs, after_step=clip_weights, optimizer=plain_sgd
    )
    agent = made(**ON, max_grad_norm=None)
    logs = fit(agent)
    number = sum(np.prod(v.shape) for v in agent.trainable_variables)
    assert 0.5 * number**0.5 < logs["gradient_norm"][0] <= number**0.5 + 1e-3
    for variable in agent.trainable_variables:
        assert np.abs(keras.ops.convert_to_numpy(variable)).max() <= 0.01 + 1e-6


def test_in_mixed_precision_gradients_have_no_scale():
    seen = []

    def look(agent, gradients, variables):
        seen.append(gradients)
        return gradients

    norms = []
    for optimizer in (
        keras.optimizers.SGD(1e-3),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-3)),
    ):
        agent = kerasrl.A2C.with_updates("Look", gradients=look)(**ON)
        agent.compile(optimizer, run_eagerly=True)
        agent.fit("CartPole-v1", steps=16, num_envs=2, verbose=0)
        norms.append(float(tf.linalg.global_norm(seen[-1])))
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_overflowed_steps_are_skipped_whatever_a_function_makes_of_them():
    def clipped(agent, gradients, variables):
        return [keras.ops.nan_to_num(keras.ops.clip(g, -1, 1)) for g in gradients]

    def large(agent, batch, outputs, settings):
        loss, metrics = kerasrl.A2C.loss(agent, batch, outputs, settings)
        return 1e30 * loss, metrics

    made = kerasrl.A2C.with_updates("Clipped", gradients=clipped, loss=large)
    agent = made(**ON, max_grad_norm=None)
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1.0), initial_scale=1e15
    )
    agent.compile(optimizer, run_eagerly=True)
    agent.build(*SPACES)
    before = agent.get_weights()
    agent.fit("CartPole-v1", steps=16, num_envs=2, verbose=0)
    assert float(optimizer.dynamic_scale) < 0.9e15
    for one, other in zip(before, agent.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("changed", [lambda a, g, v: g[:-1], lambda a, g, v: [0.0] * 9])
def test_gradients_of_other_shapes_are_refused(changed):
    agent = kerasrl.A2C.with_updates("Short", gradients=changed)(**ON)
    with pytest.raises(ValueError, match="Expected one for each variable"):
        agent.build(*SPACES)


def test_classes_without_a_class_statement():
    on_policy = kerasrl.build_agent_class(
        "Reinforce", loss=reinforce, defaults={"rollout_length": 8}
    )
    assert fit(on_policy(**SMALL))["loss"]
    off_policy = kerasrl.build_agent_class(
        "Regress",
        loss=regress,
        base=kerasrl.OffPolicyAgent,
        default_policy=kerasrl.models.QNetwork,
        act=kerasrl.agents.exploration.act_epsilon_greedy,
        exploration_inputs=no_exploration,
    )
    logs = fit(off_policy(**OFF, updates_per_call=1), steps=20)
    assert np.isfinite(logs["loss"][-1])


def no_exploration(agent, num_envs):
    return {"epsilon": np.full(num_envs, 0.5, np.float32)}


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        (
            {"loss": misspelt},
            "The loss function of Wrong looked up 'advantage', which is not there. "
            "Did you mean 'advantages'?.*batch: .*returns.*outputs: distribution",
        ),
        ({"targets": misspelt_targets}, "The targets function.*mean 'rewards'"),
        ({"metrics": misspelt_metrics}, "metrics function.*mean 'values'.*settings: "),
    ],
)
def test_what_a_function_misses_is_named_when_an_agent_is_built(updates, message):
    agent = kerasrl.A2C.with_updates("Wrong", **updates)(**ON)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        agent.build(*SPACES)


@pytest.mark.parametrize("name", among(["DQN", "R2D2", "SAC", "TD3"], ["DQN"]))
def test_what_a_function_misses_of_a_replayed_batch(name):
    made = getattr(kerasrl, name).with_updates("Wrong", metrics=misspelt_batch)
    box = spaces.Box(-1.0, 1.0, (2,))
    action_space = box if name in ("SAC", "TD3") else SPACES[1]
    agent = made(**OFF)
    with pytest.raises(ValueError, match="looked up 'reward'.*Did you mean 'rewards'"):
        agent.build(SPACES[0], action_space)
    assert agent.buffer is None and agent.buffer_size == 100 and agent.replay is None


def misspelt_batch(agent, batch, outputs, settings):
    return {"x": keras.ops.mean(batch["reward"])}


def leans(agent, batch, outputs, settings):
    if "reward" in batch or "infos" not in batch:
        raise KeyError("reward")
    told = batch["infos"]["lean"] + batch["extras"]["of_a_script"]
    return {"lean": keras.ops.mean(told)}


@pytest.mark.parametrize("name", among(["A2C", "R2D2"], ["A2C"]))
def test_what_only_environments_will_tell_is_no_mistake(name):
    made = getattr(kerasrl, name).with_updates("Leans", metrics=leans)
    agent = made(**(ON if name == "A2C" else OFF))
    agent.build(*SPACES)
    assert agent.policy.observation_space == SPACES[0]


class Leaning(gymnasium.Wrapper):
    def step(self, action):
        observation, reward, terminated, truncated, infos = self.env.step(action)
        return observation, reward, terminated, truncated, {**infos, "lean": 2.0}


def leaning_loss(agent, batch, outputs, settings):
    loss, metrics = kerasrl.A2C.loss(agent, batch, outputs, settings)
    return loss, {**metrics, "lean": keras.ops.mean(batch["infos"]["lean"])}


def test_a_loss_of_infos_trains():
    agent = kerasrl.A2C.with_updates("Leans", loss=leaning_loss)(**ON)
    agent.compile(run_eagerly=False)
    logs = agent.fit(
        lambda: Leaning(gymnasium.make("CartPole-v1")),
        steps=16,
        num_envs=2,
        verbose=0,
        info_keys=("lean",),
    ).history
    assert logs["lean"] == [2.0]


def test_other_key_errors_stay_what_they_are():
    agent = kerasrl.A2C.with_updates("Other", loss=lambda *args: {}[3])(**ON)
    with pytest.raises(KeyError, match="3"):
        agent.build(*SPACES)


def test_the_check_moves_nothing():
    plain = kerasrl.PPO(**ON)
    checked = kerasrl.PPO.with_updates("Checked", targets=own_targets)(**ON)
    after = []
    for agent in (plain, checked):
        keras.utils.set_random_seed(0)
        agent.build(*SPACES)
        drawn = keras.ops.convert_to_numpy(keras.random.uniform((3,)))
        variables = [keras.ops.convert_to_numpy(v) for _, v in all_variables(agent)]
        after.append([agent.rng.bit_generator.state, drawn.tolist(), variables])
    np.testing.assert_equal(*after)
    assert checked.num_traces == 0


@pytest.mark.parametrize(
    ("updates", "error", "message"),
    [
        ({"los": misspelt}, TypeError, "no argument 'los'. Did you mean 'loss'"),
        ({"sample": misspelt}, TypeError, "PPO.with_updates has no argument 'sample'"),
        ({"loss": 3}, TypeError, "Received loss=3. Expected a function.*PPO.loss"),
    ],
)
def test_what_cannot_be_replaced(updates, error, message):
    with pytest.raises(error, match=message):
        kerasrl.PPO.with_updates("Wrong", **updates)
    with pytest.raises(ValueError, match="Expected the name of a class"):
        kerasrl.PPO.with_updates("my ppo")
    with pytest.raises(TypeError, match="Received base="):
        kerasrl.build_agent_class("Wrong", loss=misspelt, base=dict)


@pytest.mark.parametrize(
    "defaults", [{"loss": 0.5}, {"num_traces": 3}, {"rng": 3}, {"scheduled": 1}]
)
def test_new_hyperparameters_take_no_place_of_something_else(defaults):
    with pytest.raises(ValueError, match="Choose another name"):
        kerasrl.A2C.with_updates("Wrong", defaults=defaults)()


def test_scheduled_hyperparameters_are_added():
    made = kerasrl.PPO.with_updates(
        "More", scheduled=["decay"], defaults={"decay": 0.1}
    )
    assert made.scheduled == (*kerasrl.PPO.scheduled, "decay")
    for updates in (
        {"scheduled": "gamma"},
        {"scheduled": ["decai"], "defaults": {"decay": 0.1}},
        {"kinds": ["gamma"]},
    ):
        with pytest.raises(ValueError, match="Received"):
            kerasrl.PPO.with_updates("Wrong", **updates)


def make(**updates):
    return kerasrl.A2C.with_updates(
        "Kept", loss=kept_loss, metrics=sizes, defaults={"decay": 0.1}, **updates
    )


def kept_loss(agent, batch, outputs, settings):
    loss, metrics = kerasrl.A2C.loss(agent, batch, outputs, settings)
    return loss + agent.decay * keras.ops.mean(outputs["values"] ** 2), metrics


def test_training_goes_on_exactly(tmp_path):
    agent = make()(**ON, decay=0.2)
    fit(agent)
    path = agent.save(tmp_path / "agent")
    loaded = kerasrl.load(path)
    assert type(loaded) is type(agent) and loaded.decay == 0.2
    for each in (agent, loaded):
        fit(each)
    for one, other in zip(agent.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # As in another program that has made no such class, or one of other functions.
    with pytest.raises(ValueError, match="saved with None as the after_step function"):
        make(after_step=clip_weights)
        kerasrl.load(path)
    with pytest.raises(
        ValueError, match=r"saved with test_parts:kept_loss as the loss"
    ):
        kerasrl.A2C.with_updates("Kept", loss=reinforce)
        kerasrl.load(path)
    with pytest.raises(ValueError, match="another class was registered as 'agents>Kep"):
        agent.save(path)
    del keras.saving.get_custom_objects()["agents>Kept"]
    with pytest.raises(ValueError, match=r"class 'agents>Kept'.*with_updates"):
        kerasrl.load(path)


def test_checkpoints_tell_the_attributes_of_a_class(tmp_path):
    def valued(uses_values):
        return kerasrl.A2C.with_updates(
            "Valued", keeps_distribution=uses_values, scheduled=["gae_lambda"]
        )

    agent = valued(True)(**ON)
    agent.build(*SPACES)
    path = agent.save(tmp_path / "agent")
    assert kerasrl.load(path).keeps_distribution
    valued(False)
    with pytest.raises(ValueError, match="keeps_distribution=True, which has False"):
        kerasrl.load(path)


@pytest.mark.parametrize("name", ["count", "td_errors"])
def test_metrics_do_not_mean_something_else(name):
    def metrics(agent, batch, outputs, settings):
        return {name: keras.ops.mean(batch["rewards"])}

    agent = kerasrl.A2C.with_updates("Meant", metrics=metrics)(**ON)
    with pytest.raises(ValueError, match=f"returned '{name}', which is logged already"):
        agent.build(*SPACES)


def own_update(agent, batch, settings, *rest):
    return {"loss": keras.ops.mean(batch["rewards"])}


@pytest.mark.parametrize("key", ["loss", "metrics", "gradients", "after_step"])
def test_functions_that_nothing_calls_are_refused(key):
    function = lambda agent, *args: 3  # noqa: E731
    made = kerasrl.A2C.with_updates("Idle", update=own_update, **{key: function})
    with pytest.raises(ValueError, match=f"The {key} function of Idle is never called"):
        made(**ON).build(*SPACES)


def td3_loss(agent, batch, outputs, settings):
    return kerasrl.TD3.loss(agent, batch, outputs, settings)


def td3_critic_loss(agent, batch, outputs, settings):
    return kerasrl.TD3.critic_loss(agent, batch, outputs, settings)


def test_a_loss_of_td3_is_that_of_every_step():
    made = kerasrl.TD3.with_updates("Half", loss=td3_loss)
    with pytest.raises(ValueError, match="one of 2 steps.*set policy_delay=1"):
        made(**OFF)
    box = spaces.Box(-1.0, 1.0, (2,))
    made(**OFF, policy_delay=1).build(SPACES[0], box)
    whole = kerasrl.TD3.with_updates(
        "Whole", loss=td3_loss, critic_loss=td3_critic_loss
    )
    whole(**OFF).build(SPACES[0], box)


def test_code_without_a_name_is_not_saved():
    def local(agent, batch):
        pass

    for number, function in enumerate((local, lambda agent, batch: None)):
        agent = kerasrl.A2C.with_updates(f"Local{number}", after_step=function)(**ON)
        with pytest.raises(ValueError, match="after_step function.*found by no name"):
            parts.describe(agent)
    registered = keras.saving.register_keras_serializable("tests")(local)
    agent = kerasrl.A2C.with_updates("Local", after_step=registered)(**ON)
    assert parts.describe(agent)["after_step"] == "tests>local"


def test_functions_of_a_script_are_those_of_its_module():
    class Made:
        functions = {"loss": reinforce}

    for module in ("__main__", "test_parts"):
        parts.refuse_others(Made, {"loss": f"{module}:reinforce"})
    for other in ("__main__:other", "elsewhere:reinforce", "tests>reinforce"):
        with pytest.raises(ValueError, match=re.escape(f"saved with {other} as")):
            parts.refuse_others(Made, {"loss": other})


def test_updates_add_up():
    first = kerasrl.A2C.with_updates("First", metrics=sizes, defaults={"decay": 0.1})
    second = first.with_updates("Second", loss=kept_loss, defaults={"gamma": 0.5})
    assert set(second.functions) == {"metrics", "loss"}
    agent = second(**ON)
    assert (agent.gamma, agent.decay) == (0.5, 0.1)


def test_a_critic_loss_that_a_loss_of_ones_own_leaves_out_is_refused():
    def loss(agent, batch, outputs, settings):
        found, metrics = critics.critic_loss(agent, batch, outputs)
        policy_loss = critics.policy_loss(agent, batch, outputs)
        return found + policy_loss, {**metrics, "policy_loss": policy_loss}

    made = kerasrl.TD3.with_updates("Idle", loss=loss, critic_loss=loss)
    box = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    # Called by itself between updates of the policy, if there are any.
    made(**SMALL, policy_delay=2).build(box, box)
    with pytest.raises(ValueError, match="The critic_loss function of Idle is never"):
        made(**SMALL, policy_delay=1).build(box, box)
