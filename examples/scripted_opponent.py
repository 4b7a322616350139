"""Play rock, paper, scissors against a scripted opponent, and learn from an expert.

The opponent answers the last move that it saw, which is its state. An expert knows that
and wins every round. DQN first learns from what the expert played, without an
environment, then plays itself.

Run: python examples/scripted_opponent.py --steps 20000
"""

import argparse

import gymnasium
import numpy as np

import kerasrl

ROUNDS = 10


class Answering(kerasrl.ScriptedPolicy):
    """Plays what would have beaten the other's last move; at first, rock."""

    def get_initial_state(self, batch_size):
        return {"seen": np.full(batch_size, 2)}

    def compute_actions(self, observations, state):
        # The observation is the other's last move, 3 before the first.
        seen = np.where(observations < 3, observations, state["seen"])
        return (seen + 1) % 3, {"seen": seen}, {}


class Expert(kerasrl.ScriptedPolicy):
    """Beats what the opponent is about to play."""

    def compute_actions(self, observations, state):
        answer = np.where(observations < 3, (observations + 1) % 3, 0)
        return (answer + 1) % 3, state, {"answer": answer}


class Duel(gymnasium.Env):
    """Ten rounds; the observation is one's own last move, 3 before the first."""

    observation_space = gymnasium.spaces.Discrete(4)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, opponent):
        self.opponent = opponent
        self.opponent.setup(self.observation_space, self.action_space)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.opponent.rng = self.np_random
        self.state = self.opponent.get_initial_state(1)
        self.last, self.rounds = 3, 0
        return self.last, {}

    def step(self, action):
        moves, self.state, _ = self.opponent.compute_actions(
            np.array([self.last]), self.state
        )
        # 1 beats 0, 2 beats 1, 0 beats 2.
        reward = {0: 0.0, 1: 1.0, 2: -1.0}[(int(action) - int(moves[0])) % 3]
        self.last, self.rounds = int(action), self.rounds + 1
        return self.last, reward, self.rounds == ROUNDS, False, {}


def make_env():
    """Returns a duel with an opponent of its own."""
    return Duel(Answering())


def main():
    """Evaluates the expert, learns from it, then by playing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    expert = Expert()
    print("expert:", kerasrl.evaluate(expert, make_env, episodes=20, seed=0))

    agent = kerasrl.DQN(
        policy={"hidden_units": (32,)}, learning_starts=100, seed=args.seed
    )
    agent.build(Duel.observation_space, Duel.action_space)
    rollouts = expert.rollouts(
        make_env, steps=args.steps // 2, rollout_length=64, num_envs=4, seed=1
    )
    agent.fit(list(rollouts), verbose=0)
    result = kerasrl.evaluate(agent, make_env, episodes=20, seed=0, verbose=0)
    print("after the expert's rounds:", result)

    agent.buffer = None  # Other environments than those of the expert.
    agent.fit(make_env, steps=args.steps // 2, verbose=2)
    result = kerasrl.evaluate(agent, make_env, episodes=20, seed=0, verbose=0)
    print("after rounds of its own:", result)


if __name__ == "__main__":
    main()
