"""Learn to balance a pole from what others did, without an environment.

Some of the data are of somebody who balances, most of somebody who topples it.
Behaviour cloning imitates the majority; MARWIL imitates what turned out well.

Run: python examples/offline_training.py --steps 3000
"""

import argparse

import gymnasium
import numpy as np

import kerasrl


def balance(observation, generator):
    """Pushes towards where the pole falls, most of the time."""
    _, velocity, angle, turning = observation
    push = angle + 0.3 * turning + 0.02 * velocity > 0.0
    return int(push) if generator.random() < 0.9 else int(generator.integers(2))


def topple(observation, generator):
    """Pushes away from there."""
    return 1 - balance(observation, generator)


def play(policy, episodes, generator):
    """Plays whole episodes, and returns them as a list."""
    env, played = gymnasium.make("CartPole-v1"), []
    for _ in range(episodes):
        observation, _ = env.reset(seed=int(generator.integers(2**31)))
        seen, taken, rewards, ended = [observation], [], [], (False, False)
        while not any(ended):
            taken.append(policy(observation, generator))
            observation, reward, *ended, _ = env.step(taken[-1])
            seen.append(observation)
            rewards.append(reward)
        played.append(
            kerasrl.offline.Episode(
                np.stack(seen), np.array(taken), np.array(rewards), *ended
            )
        )
    return played


def main():
    """Trains both, and prints how long the pole stands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3_000)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    env = gymnasium.make("CartPole-v1")
    dataset = kerasrl.offline.from_episodes(
        [*play(balance, 5, generator), *play(topple, 400, generator)],
        env.observation_space,
        env.action_space,
    )
    print(f"{dataset.num_episodes} episodes, {dataset.num_steps} steps.")
    for agent in (kerasrl.BC(seed=0), kerasrl.MARWIL(beta=2.0, seed=0)):
        agent.fit(dataset, steps=arguments.steps, verbose=0)
        result = agent.evaluate("CartPole-v1", episodes=10, seed=0, verbose=0)
        name = type(agent).__name__
        print(f"{name}: the pole stands for {result['length_mean']:.0f} steps.")


if __name__ == "__main__":
    main()
