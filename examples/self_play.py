"""Learn tic-tac-toe against one's own past.

Run: python examples/self_play.py --steps 500000
"""

import argparse

import numpy as np

import kerasrl
from kerasrl.multi_agent import (
    MultiAgent,
    Opponents,
    RandomPolicy,
    SelfPlay,
    either_side,
)


def main():
    """Trains, and prints results against a fixed opponent and between snapshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500_000)
    args = parser.parse_args()
    main_policy = kerasrl.PPO(
        policy={"hidden_units": (128, 128)},
        rollout_length=32,
        num_epochs=4,
        minibatch_size=1024,
        entropy_coef=0.03,
        gamma=1.0,
        seed=0,
    )
    policies = {
        "main": main_policy,
        "past": Opponents("main", choose="prioritized"),
        "random": RandomPolicy(),
    }
    agent = MultiAgent(policies, either_side, seed=0)
    agent.fit(
        "tic_tac_toe",
        steps=args.steps,
        num_envs=32,
        callbacks=[SelfPlay("past", every=30)],
        verbose=2,
    )
    # Returns of self-play are 0 on average: measure against somebody fixed.
    for sides in ({"x": "main", "o": "random"}, {"x": "random", "o": "main"}):
        result = agent.evaluate("tic_tac_toe", 200, seed=0, mapping=sides)
        print(sides, f"won {result['win_rate_main']:.2f}", end=" ")
        print(f"drawn {result['draw_rate_main']:.2f}")
    np.set_printoptions(precision=2, suppress=True)
    print("Share won by each snapshot (rows) against each; last, the policy now:")
    print(agent.agents["past"].matrix())


if __name__ == "__main__":
    main()
