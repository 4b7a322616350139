"""Evolve a policy from nothing but the return of whole episodes.

The environment says how an episode went at its end only, and in numbers whose size
means nothing: algorithms that learn from single steps have little to go by. ES and ARS
compare episodes. Both play with the weights themselves in each iteration, which is what
`unperturbed_return_mean` shows, and what training ends by here.

Run: python examples/evolution_strategies.py --steps 120000
"""

import argparse

import gymnasium

import kerasrl
from kerasrl.callbacks import StopOn


class LateReward(gymnasium.Wrapper):
    """CartPole that keeps its rewards until the end, and then squares their sum."""

    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1"))
        self.length = 0

    def reset(self, **arguments):
        """Starts to count anew."""
        self.length = 0
        return self.env.reset(**arguments)

    def step(self, action):
        """Returns a reward with the last step."""
        observation, _, terminated, truncated, info = self.env.step(action)
        self.length += 1
        reward = float(self.length**2) if terminated or truncated else 0.0
        return observation, reward, terminated, truncated, info


def main():
    """Evolves two policies, and prints how long they balance the pole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=120_000)
    arguments = parser.parse_args()
    for name in ("ES", "ARS"):
        agent = getattr(kerasrl, name)(unperturbed_episodes=5, seed=0)
        agent.fit(
            LateReward,
            steps=arguments.steps,
            num_envs=32,
            callbacks=[StopOn({"unperturbed_return_mean": 499.0**2})],
            verbose=0,
        )
        result = agent.evaluate(LateReward, episodes=20, seed=0, verbose=0)
        print(
            f"{name}: {agent.iterations} iterations, {agent.env_steps} "
            f"steps; the pole stands for {result['length_mean']:.0f} steps."
        )


if __name__ == "__main__":
    main()
