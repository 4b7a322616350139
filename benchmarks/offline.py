"""Returns of algorithms that learn from data alone, beside the data and a control.

    python benchmarks/offline.py cartpole --seeds 3
    python benchmarks/offline.py pendulum --seeds 3
    python benchmarks/offline.py imitation --seeds 3

The data are made here, with a seed of their own. CartPole-v1: PPO until it balances, 20
episodes of what it then does (expert); as many steps of uniform actions (random); both
together (mixed). Pendulum-v1: all that SAC does in its first 20,000 steps (replay), and
the best 20 episodes of that (best), which hold nothing but good actions. With --data
they are kept in a directory, and rows can be tried one at a time.

Returns are means over 100 episodes, of deterministic policies and, where there is a
distribution, of actions that are drawn: who clones a mixture does what most do if it
takes the mode, and mixes if it draws. What is learnt from mixed data must beat the
cloning of it, as it is drawn; by modes, cloning reaches 500 too where most of the data
are the expert's. Plain DQN and SAC, which trust what they have never seen, are there
for comparison: they fail where data leave something out.

`imitation` is PPO in CartPole-v1 with a loss that imitates the expert besides, and the
same PPO without: environment steps until the last 100 episodes, played as it explores,
returned 475 on average, which is what the environment counts as solved.
"""

import argparse
import json
import tempfile
from pathlib import Path

import gymnasium
import keras
import numpy as np

import kerasrl
from kerasrl import offline
from kerasrl.callbacks import Callback, StopOn
from kerasrl.offline import Episode, from_episodes

RESULTS = Path(__file__).parent / "results"

#: Stands for arguments and steps that kerasrl ships, in `kerasrl/tuned`.
TUNED: dict = {}
#: Of each environment: name, data, how the agent is made, gradient steps, and the gate.
CARTPOLE = {
    "bc-expert": ("expert", kerasrl.BC, TUNED, None, ">= 475"),
    "bc-random": ("random", kerasrl.BC, {}, 4_000, "<= 40"),
    "bc-mixed": ("mixed", kerasrl.BC, {}, 4_000, "drawn: 20 to 200"),
    "marwil-mixed": ("mixed", kerasrl.MARWIL, TUNED, None, ">= 250"),
    "iql-mixed": ("mixed", kerasrl.IQL, TUNED, None, "drawn: above bc-mixed"),
    "cql-mixed": ("mixed", kerasrl.CQL, TUNED, None, ">= 400"),
    # Which trains a policy besides the values of actions.
    "cql-policy-mixed": ("mixed", kerasrl.CQL, {"alpha": 1.0}, 8_000, ">= 400"),
    "dqn-random": ("random", kerasrl.DQN, {"batch_size": 256}, 8_000, "control"),
}
PENDULUM = {
    "bc-replay": ("replay", kerasrl.BC, {}, 8_000, "clearly below the others"),
    "td3bc-replay": ("replay", kerasrl.TD3BC, TUNED, None, ">= -300"),
    "iql-replay": ("replay", kerasrl.IQL, TUNED, None, ">= -300"),
    "cql-replay": ("replay", kerasrl.CQL, TUNED, None, ">= -300"),
    "sac-replay": ("replay", kerasrl.SAC, {"temperature": 0.1}, 10_000, "control"),
    "bc-best": ("best", kerasrl.BC, {}, 4_000, "for comparison"),
    "sac-best": ("best", kerasrl.SAC, {"temperature": 0.1}, 10_000, "control"),
}
IMITATION = {
    "ppo-imitating": ("expert", None, {}, 150_000, "fewer steps than ppo-alone"),
    "ppo-alone": ("expert", None, {}, 150_000, "for comparison"),
}
TASKS = {
    "cartpole": ("CartPole-v1", CARTPOLE),
    "pendulum": ("Pendulum-v1", PENDULUM),
    "imitation": ("CartPole-v1", IMITATION),
}


@keras.saving.register_keras_serializable("benchmarks_offline")
class Imitating(kerasrl.models.ActorCritic):
    """Makes the actions of a dataset likely, too."""

    def custom_loss(self, loss, batch):
        data = batch["offline"]
        outputs = kerasrl.agents.forward(self, data)
        log_probs = self.distribution(outputs).log_prob(data["actions"])
        return loss - 10.0 * kerasrl.losses.masked_mean(log_probs, data["mask"])


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
    best = sorted(episodes, key=lambda episode: episode.episode_return)[-20:]
    return {"replay": episodes, "best": best}


def data_of(task, directory):
    """Returns a dict of data sets, made anew if the directory has none yet."""
    env_name, rows = TASKS[task]
    kinds = {kind for kind, *_ in rows.values()}
    paths = {kind: Path(directory) / env_name / kind for kind in kinds}
    if not all(path.exists() for path in paths.values()):
        make = {"Pendulum-v1": pendulum_data, "CartPole-v1": cartpole_data}[env_name]
        env = gymnasium.make(env_name)
        for kind, episodes in make().items():
            made = from_episodes(episodes, env.observation_space, env.action_space)
            offline.convert(made, Path(directory) / env_name / kind)
    return {kind: offline.load(path) for kind, path in paths.items()}


def train(task, name, dataset, seed):
    """Trains one agent; returns its mean returns, of modes and drawn, or steps."""
    env_name, rows = TASKS[task]
    _, agent_class, arguments, steps, _ = rows[name]
    if task == "imitation":
        return [steps_to_balance(name, dataset, steps, seed)]
    if arguments is TUNED:
        tuned = kerasrl.tuned(agent_class.__name__, env_name)
        agent, steps = tuned.make_agent(seed), tuned.steps
    else:
        agent = agent_class(**arguments, updates_per_call=50, seed=seed)
    try:
        agent.fit(dataset, steps=steps, verbose=0)
    except FloatingPointError:
        return [float("nan")]
    found = [{"deterministic": True}]
    if agent_class in (kerasrl.BC, kerasrl.MARWIL, kerasrl.IQL):
        found.append({"deterministic": False})
    arguments = {"episodes": 100, "seed": 0, "verbose": 0}
    return [agent.evaluate(env_name, **arguments, **x)["return_mean"] for x in found]


def steps_to_balance(name, dataset, most, seed):
    """Returns after how many environment steps PPO reaches 475; infinity if never."""
    imitates = name == "ppo-imitating"
    agent = kerasrl.PPO(policy=Imitating() if imitates else None, seed=seed)
    stop = StopOn({"episode_return_mean": 475.0})
    agent.fit(
        "CartPole-v1",
        steps=most,
        steps_per_epoch=1024,
        offline=dataset if imitates else None,
        offline_batch_size=256 if imitates else None,
        callbacks=[stop],
        verbose=0,
    )
    return agent.env_steps if stop.reason else float("inf")


def write(task, data, name, seed, found):
    """Adds what a seed found to the results, and makes the tables of all of them.

    What later seeds had found before is forgotten: that of another version, perhaps.
    """
    path = RESULTS / "offline.json"
    whole = json.loads(path.read_text()) if path.exists() else {}
    kept = whole.setdefault(task, {"data": {}, "rows": {}})
    for kind, dataset in data.items():
        mean = dataset.statistics()["return_mean"]
        kept["data"][kind] = [dataset.num_episodes, dataset.num_steps, mean]
    before = kept["rows"].get(name, [])
    if len(before) < seed:
        raise SystemExit(f"There are no results yet of seeds before {seed}.")
    kept["rows"][name] = [*before[:seed], found]
    path.write_text(json.dumps(whole, indent=1) + "\n")
    lines = []
    for each, (env_name, rows) in TASKS.items():
        if each not in whole:
            continue
        lines += [f"## {each}, {env_name}", "", "| data | episodes | steps | return |"]
        lines += ["| --- | --- | --- | --- |"]
        for kind, (episodes, steps, mean) in sorted(whole[each]["data"].items()):
            lines.append(f"| {kind} | {episodes} | {steps:,} | {mean:.0f} |")
        what = "environment steps to 475" if each == "imitation" else "returns"
        lines += ["", f"| row | steps | {what} | drawn | gate |"]
        lines += ["| --- | --- | --- | --- | --- |"]
        for name, (_, agent_class, arguments, steps, gate) in rows.items():
            if arguments is TUNED:
                steps = kerasrl.tuned(agent_class.__name__, env_name).steps
            found = whole[each]["rows"].get(name)
            if found is None:
                continue
            modes, drawn = (
                ", ".join(f"{x[i]:,.0f}" for x in found if x[i:]) or "-" for i in (0, 1)
            )
            lines.append(f"| {name} | {steps:,} | {modes} | {drawn} | {gate} |")
        lines.append("")
    path.with_suffix(".md").write_text("\n".join(lines).rstrip() + "\n")


def main():
    """Trains rows of a task, prints what they reach, and adds it to the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("rows", nargs="*", help="Names of rows; all if none.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--data", help="Directory of the data; made if not there.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        data = data_of(arguments.task, arguments.data or directory)
        rows = TASKS[arguments.task][1]
        for name in arguments.rows or rows:
            kind, *_ = rows[name]
            first = arguments.first_seed
            for seed in range(first, first + arguments.seeds):
                found = train(arguments.task, name, data[kind], seed)
                print(name, seed, *(f"{x:.0f}" for x in found), flush=True)
                write(arguments.task, data, name, seed, found)


if __name__ == "__main__":
    main()
