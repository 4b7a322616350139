"""Returns of algorithms that learn from data alone, beside the data and a control.

    python benchmarks/offline.py cartpole --seeds 3
    python benchmarks/offline.py pendulum --seeds 3

The data are made here, with a seed of their own. CartPole-v1: PPO until it balances, 20
episodes of what it then does (expert); as many steps of uniform actions (random); both
together (mixed). Pendulum-v1: all that SAC does in its first 20,000 steps (replay).

Returns are of deterministic policies over 100 episodes. Gates are those of the design:
what is learnt from mixed data must beat the cloning of it, and plain DQN and SAC, which
trust what they have never seen, are there to fail.
"""

import argparse
import json
from pathlib import Path

import gymnasium
import numpy as np

import kerasrl
from kerasrl.callbacks import Callback, StopOn
from kerasrl.offline import Dataset, Episode, from_episodes

RESULTS = Path(__file__).parent / "results"

#: Of each environment: name, data, how the agent is made, gradient steps, and the gate:
#: the least return (or, negated in words, the most).
CARTPOLE = {
    "bc-expert": ("expert", kerasrl.BC, {}, 4_000, ">= 475"),
    "bc-random": ("random", kerasrl.BC, {}, 4_000, "<= 40"),
    "bc-mixed": ("mixed", kerasrl.BC, {}, 4_000, "20 to 200"),
    "marwil-mixed": ("mixed", kerasrl.MARWIL, {"beta": 2.0}, 8_000, ">= 250"),
    "iql-mixed": ("mixed", kerasrl.IQL, {}, 8_000, "above bc-mixed"),
    "cql-mixed": ("mixed", kerasrl.CQL, {"alpha": 1.0}, 8_000, ">= 400"),
    "dqn-random": ("random", kerasrl.DQN, {"batch_size": 256}, 8_000, "control"),
}
PENDULUM = {
    "bc-replay": ("replay", kerasrl.BC, {}, 8_000, "clearly below the others"),
    "td3bc-replay": ("replay", kerasrl.TD3BC, {}, 20_000, ">= -300"),
    "iql-replay": ("replay", kerasrl.IQL, {"expectile": 0.8}, 20_000, ">= -300"),
    "cql-replay": ("replay", kerasrl.CQL, {"alpha": 1.0}, 20_000, ">= -300"),
    "sac-replay": ("replay", kerasrl.SAC, {"temperature": 0.1}, 20_000, "control"),
}
TASKS = {"cartpole": ("CartPole-v1", CARTPOLE), "pendulum": ("Pendulum-v1", PENDULUM)}


def play(env_name, choose, num_steps, seed):
    """Plays whole episodes of at least so many steps; returns a list of them."""
    env, episodes, steps = gymnasium.make(env_name), [], 0
    generator = np.random.default_rng(seed)
    while steps < num_steps:
        observation, _ = env.reset(seed=int(generator.integers(2**31)))
        seen, taken, rewards, ended = [observation], [], [], (False, False)
        while not any(ended):
            taken.append(choose(observation, generator))
            observation, reward, *ended, _ = env.step(taken[-1])
            seen.append(observation)
            rewards.append(float(reward))
        steps += len(rewards)
        episodes.append(
            Episode(np.stack(seen), np.stack(taken), np.array(rewards), *ended)
        )
    return episodes


def cartpole_data():
    """Returns expert, random and mixed episodes of CartPole-v1."""
    agent = kerasrl.PPO(seed=100)
    agent.fit(
        "CartPole-v1",
        steps=200_000,
        callbacks=[StopOn({"episode_return_mean": 490.0})],
        verbose=0,
    )

    def expert(observation, generator):
        return agent.predict(observation[None])[0]

    def uniform(observation, generator):
        return generator.integers(2)

    best = play("CartPole-v1", expert, 20 * 500, 1)
    worst = play("CartPole-v1", uniform, 20 * 500, 2)
    return {"expert": best, "random": worst, "mixed": [*best, *worst]}


class Recorder(Callback):
    """Keeps the episodes of training, of one environment."""

    def __init__(self):
        super().__init__()
        self.rollouts = []

    def on_rollout_end(self, rollout):
        """Keeps a rollout."""
        self.rollouts.append(rollout)


def pendulum_data():
    """Returns what SAC does while it learns Pendulum-v1."""
    recorder = Recorder()
    agent = kerasrl.SAC(gamma=0.98, seed=100)
    agent.fit("Pendulum-v1", steps=20_000, num_envs=1, callbacks=[recorder], verbose=0)
    columns = {
        name: np.concatenate([getattr(each, name)[:, 0] for each in recorder.rollouts])
        for name in ("observations", "actions", "rewards", "truncated")
    }
    episodes, start = [], 0
    for stop in np.flatnonzero(columns["truncated"]) + 1:
        rows = slice(start, stop)
        seen = columns["observations"][rows]
        # The last step is left out: what followed it is the next episode.
        episodes.append(
            Episode(
                seen,
                np.clip(columns["actions"][rows][:-1], -2.0, 2.0),
                columns["rewards"][rows][:-1],
                truncated=True,
            )
        )
        start = stop
    return {"replay": episodes}


def train(task, name, data, seed):
    """Trains one agent; returns the mean return of its policy."""
    env_name, rows = TASKS[task]
    kind, agent_class, arguments, steps, _ = rows[name]
    env = gymnasium.make(env_name)
    dataset: Dataset = from_episodes(
        data[kind], env.observation_space, env.action_space
    )
    agent = agent_class(**arguments, updates_per_call=50, seed=seed)
    agent.fit(dataset, steps=steps, verbose=0)
    return agent.evaluate(env_name, episodes=100, seed=0, verbose=0)["return_mean"]


def main():
    """Trains all rows of a task, and prints and writes a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("rows", nargs="*", help="Names of rows; all if none.")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    data = {"cartpole": cartpole_data, "pendulum": pendulum_data}[arguments.task]()
    lines = ["| data | episodes | mean return |", "| --- | --- | --- |"]
    for kind, episodes in data.items():
        mean = np.mean([each.episode_return for each in episodes])
        lines.append(f"| {kind} | {len(episodes)} | {mean:.0f} |")
    lines += [
        "",
        "| row | gradient steps | returns | gate |",
        "| --- | --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    found = {}
    rows = TASKS[arguments.task][1]
    for name in arguments.rows or rows:
        *_, steps, gate = rows[name]
        found[name] = []
        for seed in range(arguments.seeds):
            try:
                found[name].append(train(arguments.task, name, data, seed))
            except FloatingPointError:
                found[name].append(float("nan"))
        text = ", ".join(f"{value:.0f}" for value in found[name])
        lines.append(f"| {name} | {steps:,} | {text} | {gate} |")
        print(lines[-1], flush=True)
    path = RESULTS / f"offline_{arguments.task}"
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")
    path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
