"""What a policy wants recorded of each step reaches every loss as it was."""

import keras
import numpy as np
import pytest
from daily import among

import kerasrl
from kerasrl.models import ActorCritic, DeterministicActorCritic, QNetwork


def with_extras(base):
    class Recording(base):
        def call(self, inputs, state=None, training=False):
            outputs = super().call(inputs, state, training)
            first = inputs["observations"][:, 0]
            return {**outputs, "first": first}

        def step_extras(self, outputs):
            return {
                "first": outputs["first"],
                "pair": {"twice": 2.0 * outputs["first"]},
            }

    return Recording


def compare(agent, batch, outputs, settings):
    extras = batch["extras"]
    first = batch["observations"][..., 0]
    difference = keras.ops.abs(first - extras["first"])
    difference += keras.ops.abs(2.0 * first - extras["pair"]["twice"])
    weights = batch["mask"]
    return {"difference": keras.ops.sum(difference * weights)}


REPLAY = {"learning_starts": 8, "batch_size": 4, "buffer_size": 100}
SEQUENCES = {"burn_in": 1, "sequence_length": 4, "period": 2, "train_every": 4}
AGENTS = {
    "A2C": ({}, ActorCritic, {"cell": "lstm", "cell_units": 3}),
    "PPO": ({"rollout_length": 8, "num_epochs": 1}, ActorCritic, {}),
    "DQN": (REPLAY, QNetwork, {}),
    "R2D2": ({**REPLAY, **SEQUENCES}, QNetwork, {"cell": "gru", "cell_units": 3}),
    "TD3": (REPLAY, DeterministicActorCritic, {}),
}


@pytest.mark.parametrize("name", among(AGENTS, ["DQN"]))
def test_they_reach_the_loss(name):
    arguments, base, described = AGENTS[name]
    policy = with_extras(base)(hidden_units=(4,), **described)
    made = getattr(kerasrl, name).with_updates("Comparing", metrics=compare)
    agent = made(policy=policy, seed=0, **arguments)
    agent.compile(jit_compile=False)
    env = "Pendulum-v1" if name == "TD3" else "CartPole-v1"
    logs = agent.fit(env, steps=40, num_envs=2, verbose=0).history
    assert logs["difference"] == [0.0]
    assert agent.actor().backend == "numpy"


def test_names_that_are_taken_are_refused():
    class Taken(ActorCritic):
        def step_extras(self, outputs):
            return {"distribution": outputs["distribution"]}

    agent = kerasrl.PPO(policy=Taken(hidden_units=(4,)))
    with pytest.raises(ValueError, match=r"step_extras returned \['distribution'\]"):
        agent.evaluate("CartPole-v1", episodes=1, deterministic=False, verbose=0)


def test_an_act_of_ones_own_that_calls_the_policy_itself():
    class Own(kerasrl.A2C):
        def act(self, inputs, deterministic):
            names = ("observations", "previous_actions", "previous_rewards")
            outputs = self.policy({name: inputs[name] for name in names})
            actions = self.policy.distribution(outputs).mode()
            return {"actions": actions, "state": ()}

    agent = Own(policy=with_extras(ActorCritic)(hidden_units=(4,)))
    env = kerasrl.make_envs("CartPole-v1", 1)
    agent.build(env.observation_space, env.action_space)
    inputs = {**agent.policy.example_inputs(3), "state": ()}
    inputs["observations"] = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(agent.actor()(inputs)["first"], [0, 4, 8])
