"""Play rock, paper, scissors against rules, and learn what they do.

One rule always plays the same within a game, the other beats what it saw last. What
learns sees only the last move of the other: with memory it also knows its own, which is
what the second rule answers.

Run: python examples/rock_paper_scissors.py --steps 40000
"""

import argparse

import numpy as np

import kerasrl
from kerasrl.multi_agent import RockPaperScissors


class Same(kerasrl.ScriptedPolicy):
    """Draws a move for each game, and stays with it."""

    def get_initial_state(self, batch_size):
        return np.full(batch_size, 3)

    def compute_actions(self, observations, state):
        drawn = self.rng.integers(3, size=len(state))
        moves = np.where(state == 3, drawn, state)
        return moves, moves, {}


class BeatLast(kerasrl.ScriptedPolicy):
    """Beats what the other played last; at first, paper."""

    def compute_actions(self, observations, state):
        return (observations + 1) % 3, state, {}


def main():
    """Trains against one of the rules, drawn for each game, and scores both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40_000)
    args = parser.parse_args()

    def against_a_rule(agent, episode):
        if agent == "player_0":
            return "learner"
        return ("same", "beat_last")[episode.rng.integers(2)]

    learner = kerasrl.PPO(
        policy={"cell": "lstm", "previous_inputs": True, "hidden_units": (32,)},
        rollout_length=50,
        seed=0,
    )
    rules = {"same": Same(), "beat_last": BeatLast()}
    agent = kerasrl.MultiAgent({"learner": learner, **rules}, against_a_rule, seed=0)
    agent.fit(RockPaperScissors, steps=args.steps, verbose=2)
    for name in rules:
        sides = {"player_0": "learner", "player_1": name}
        result = agent.evaluate(RockPaperScissors, 50, seed=0, mapping=sides)
        print(f"against {name}: {result['return_mean_learner']:+.1f} of 10")


if __name__ == "__main__":
    main()
