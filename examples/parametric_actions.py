"""Actions that come and go: CartPole whose two moves hide among ten slots.

    python examples/parametric_actions.py [--algorithm DQN] [--steps 100000]

Every step, each move lies in another slot, described by an embedding; the other slots
are illegal. The number of actions says nothing then: the policy computes an intent from
the state of the cart, and the value of a slot is how well its embedding agrees with it.
The mask in the observations is honoured by itself.
"""

import argparse

import gymnasium
import keras
import numpy as np
from gymnasium import spaces
from keras import ops

import kerasrl

NUM_SLOTS = 10
EMBEDDING_SIZE = 2


class ParametricCartPole(gymnasium.Env):
    """CartPole-v1 with embedded actions, as in RLlib's example of this name."""

    def __init__(self):
        self.env = gymnasium.make("CartPole-v1", disable_env_checker=True)
        generator = np.random.default_rng(0)
        self.moves = generator.normal(size=(2, EMBEDDING_SIZE)).astype(np.float32)
        self.action_space = spaces.Discrete(NUM_SLOTS)
        available = spaces.Box(-np.inf, np.inf, (NUM_SLOTS, EMBEDDING_SIZE))
        self.observation_space = spaces.Dict(
            {
                "action_mask": spaces.MultiBinary(NUM_SLOTS),
                "available_actions": available,
                "cart": self.env.observation_space,
            }
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        cart, info = self.env.reset(seed=seed)
        return self._observation(cart), info

    def step(self, action):
        move = self.slots.tolist().index(action)
        cart, *rest = self.env.step(move)
        return self._observation(cart), *rest

    def _observation(self, cart):
        self.slots = self.np_random.permutation(NUM_SLOTS)[:2]
        mask = np.zeros(NUM_SLOTS, np.int8)
        available = np.zeros((NUM_SLOTS, EMBEDDING_SIZE), np.float32)
        mask[self.slots], available[self.slots] = 1, self.moves
        return {"action_mask": mask, "available_actions": available, "cart": cart}


def agreement(intents, available_actions):
    """How well each action agrees with what is intended, `[N, NUM_SLOTS]`."""
    return ops.sum(intents[:, None] * available_actions, axis=-1)


@keras.saving.register_keras_serializable("examples")
class ParametricPolicy(kerasrl.models.Policy):
    """Logits are agreements; for PPO and its kin."""

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.intent = keras.Sequential(
            [keras.layers.Dense(64, "tanh"), keras.layers.Dense(EMBEDDING_SIZE)]
        )
        self.value = keras.Sequential(
            [keras.layers.Dense(64, "tanh"), keras.layers.Dense(1)]
        )

    def call(self, inputs, state=None, training=False):
        observations = inputs["observations"]
        intents = self.intent(observations["cart"])
        return {
            "distribution": agreement(intents, observations["available_actions"]),
            "values": ops.squeeze(self.value(observations["cart"]), -1),
        }


@keras.saving.register_keras_serializable("examples")
class ParametricQ(kerasrl.models.QFunction):
    """Values are agreements; for DQN and its kin."""

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.intent = keras.Sequential(
            [
                keras.layers.Dense(128, "relu"),
                keras.layers.Dense(128, "relu"),
                keras.layers.Dense(EMBEDDING_SIZE),
            ]
        )

    def call(self, inputs, state=None, training=False):
        observations = inputs["observations"]
        intents = self.intent(observations["cart"])
        return {"q_values": agreement(intents, observations["available_actions"])}


AGENTS = {
    "PPO": lambda: kerasrl.PPO(policy=ParametricPolicy(), seed=0),
    "DQN": lambda: kerasrl.DQN(policy=ParametricQ(), seed=0),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--algorithm", choices=AGENTS, default="PPO")
    parser.add_argument("--steps", type=int, default=100_000)
    arguments = parser.parse_args()
    agent = AGENTS[arguments.algorithm]()
    agent.fit(ParametricCartPole, steps=arguments.steps, verbose=2)
    result = agent.evaluate(ParametricCartPole, episodes=10, verbose=0)
    print(f"mean return over 10 episodes: {result['return_mean']:.1f}")


if __name__ == "__main__":
    main()
