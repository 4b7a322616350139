"""Learning to published thresholds, over several seeds.

    python benchmarks/learning.py [EXPERIMENT ...] [--seeds 5] [--jobs 1]

Each experiment trains one algorithm on one environment with the tuned settings that
kerasrl ships (`kerasrl tuned`), or others where it says so, one seed per process, and
evaluates over 100 episodes that training has not seen, deterministically unless the
best policy is a random one. *final* is the policy at the end; *best* is the one with
the highest return in evaluations of 10 episodes during training (other episodes than
the 100). An experiment passes when enough seeds reach its gate.

Experiments with Stable-Baselines3 beside them (all whose algorithm it has) train it
with the same hyperparameters and seeds, and compare the training return: the mean, over
the steps of the run, of the average return of the latest 100 episodes (that is, the
area under the usual curve). Ours is "lower" if its mean over the seeds is below theirs
by more than two standard errors of the difference.

Results go to `benchmarks/results/learning.json` and `.md`; experiments that are not
named keep their last results there, and with `--only` so do the runs of the other
library.
"""

import argparse
import dataclasses
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from off_policy_experiments import off_policy_experiments

import kerasrl
from kerasrl.experiment import find_algorithm, split_config
from kerasrl.experiment.tuned_settings import TunedSettings

RESULTS = Path(__file__).parent / "results"
EVALUATION_EPISODES = 100
LIBRARIES = ("kerasrl", "stable_baselines3")


@dataclass(frozen=True)
class Experiment:
    """What to train and what it must reach.

    Settings are the tuned ones that kerasrl ships, in `kerasrl/tuned`, with `changes`.
    `gate` is compared with the `measure` of `checkpoint` ("final" or "best");
    `required` is the share of the seeds that must reach it. With `below`, they must
    stay below it instead.
    """

    algorithm: str
    env: str
    gate: float
    required: float
    checkpoint: str = "final"
    below: bool = False
    #: How many evaluations choose the best.
    evaluations: int = 20
    #: The environment whose tuned settings these are; `None` for the defaults of the
    #: algorithm, and "" for those of `env`.
    settings_of: str | None = ""
    #: Settings that are others.
    changes: dict = field(default_factory=dict)
    #: Environment steps, where they are not those of the tuned settings.
    other_steps: int | None = None
    #: How many episodes the policies at the end, and the best, are evaluated on.
    episodes: int = EVALUATION_EPISODES
    #: Whether it is evaluated by the modes of its distributions.
    deterministic: bool = True
    #: What evaluations measure: the mean "return", or the share of episodes that end
    #: in "success", which infos say as `is_success`.
    measure: str = "return"
    #: The same for Stable-Baselines3, if it is to be compared.
    sb3: dict | None = None

    @functools.cached_property
    def tuned(self):
        """`kerasrl.experiment.tuned_settings.TunedSettings`, with the changes."""
        if self.settings_of is None:
            config = {"num_envs": 8, **self.changes}
            return TunedSettings(self.algorithm, self.env, self.other_steps, config)
        tuned = kerasrl.tuned(self.algorithm, self.settings_of or self.env)
        steps = self.other_steps or tuned.steps
        tuned = tuned.changed(self.changes)
        return dataclasses.replace(tuned, env=self.env, steps=steps)

    @property
    def steps(self):
        return self.tuned.steps

    @functools.cached_property
    def settings(self):
        """The configuration, sorted by who takes what."""
        algorithm = find_algorithm(self.algorithm)
        return split_config(self.tuned.config, algorithm)

    @property
    def num_envs(self):
        return self.settings.fit["num_envs"]

    @property
    def num_workers(self):
        """Processes, which for some algorithms act while the learner learns."""
        return self.settings.fit.get("num_workers", 0)

    @property
    def env_config(self):
        return self.settings.fit.get("env_config")


def falling(first, steps, last=0.0):
    """A schedule as files have it."""
    config = {
        "initial_learning_rate": first,
        "decay_steps": steps,
        "end_learning_rate": last,
    }
    return {"class_name": "PolynomialDecay", "config": config}


#: Choices of two parts that must agree, on something else than last time.
AGREEMENT = {"env": "Agreement-v1", "required": 1.0, "deterministic": False}
#: Parts that do not know of each other.
INDEPENDENT = {
    "changes": {"policy": {"autoregressor": None}},
    "gate": 2.8,
    "below": True,
    **AGREEMENT,
}

EXPERIMENTS = {
    "ppo-cartpole": Experiment(
        algorithm="PPO",
        env="CartPole-v1",
        gate=475,
        required=1.0,
        sb3={
            "n_steps": 32,
            "n_epochs": 20,
            "batch_size": 256,
            "gamma": 0.98,
            "gae_lambda": 0.8,
        },
    ),
    "ppo-cartpole-defaults": Experiment(
        algorithm="PPO",
        env="CartPole-v1",
        settings_of=None,
        other_steps=100_000,
        gate=475,
        required=1.0,
        sb3={
            "n_steps": 128,
            "n_epochs": 10,
            "batch_size": 256,
            "learning_rate": 1e-3,
        },
    ),
    "a2c-cartpole": Experiment(
        algorithm="A2C",
        env="CartPole-v1",
        gate=475,
        required=0.8,
        checkpoint="best",
        # Its defaults are ours: RMSprop with epsilon outside the root, 7e-4.
        sb3={},
    ),
    # Their defaults, but for the number of environments, which changes nothing.
    "es-cartpole": Experiment(
        algorithm="ES", env="CartPole-v1", gate=475, required=1.0, episodes=20
    ),
    "ars-cartpole": Experiment(
        algorithm="ARS", env="CartPole-v1", gate=475, required=1.0, episodes=20
    ),
    "pg-cartpole": Experiment(
        algorithm="PG", env="CartPole-v1", gate=400, required=0.8, checkpoint="best"
    ),
    "ppo-pendulum": Experiment(
        algorithm="PPO",
        env="Pendulum-v1",
        gate=-250,
        required=0.8,
        sb3={
            "n_steps": 256,
            "n_epochs": 10,
            "batch_size": 64,
            "gamma": 0.9,
            "gae_lambda": 0.95,
        },
    ),
    "ppo-pendulum-held-noise": Experiment(
        algorithm="PPO",
        env="Pendulum-v1",
        gate=-250,
        required=0.8,
        changes={"policy": {"noise_steps": 4}},
    ),
    "ppo-acrobot": Experiment(
        algorithm="PPO",
        env="Acrobot-v1",
        gate=-100,
        required=0.8,
        sb3={"n_steps": 128, "n_epochs": 10, "batch_size": 256, "gae_lambda": 0.94},
    ),
    # The cell sees observations directly, as in sb3-contrib. The feed-forward policy
    # below keeps its two layers: without them it would be linear.
    "ppo-recurrent": Experiment(
        algorithm="PPO", env="StatelessCartPole-v1", gate=450, required=0.6
    ),
    # 0.95 of the best return of a policy without memory, 7.5.
    "ppo-agreement": Experiment(algorithm="PPO", gate=7.125, **AGREEMENT),
    "a2c-agreement": Experiment(algorithm="A2C", gate=7.125, **AGREEMENT),
    # Independent parts get 2.5 at best; the gate is that and the noise of 100 episodes.
    "ppo-agreement-independent": Experiment(algorithm="PPO", **INDEPENDENT),
    "a2c-agreement-independent": Experiment(algorithm="A2C", **INDEPENDENT),
    "ppo-recurrent-feed-forward": Experiment(
        algorithm="PPO",
        env="StatelessCartPole-v1",
        gate=150,
        required=1.0,
        below=True,
        changes={"policy": {"cell": None, "hidden_units": None}},
    ),
}

# Algorithms that learn from older weights, of workers that act meanwhile.
ASYNCHRONOUS = {"env": "CartPole-v1", "gate": 450, "required": 1.0}
EXPERIMENTS |= {
    "a3c-cartpole": Experiment(algorithm="A3C", **ASYNCHRONOUS),
    "impala-cartpole": Experiment(algorithm="IMPALA", **ASYNCHRONOUS),
    "appo-cartpole": Experiment(algorithm="APPO", **ASYNCHRONOUS),
    "impala-stateless": Experiment(
        algorithm="IMPALA", env="StatelessCartPole-v1", gate=400, required=1.0
    ),
}
# With a lag of exactly 16 updates; and what comes of that without V-trace.
LAG = {
    "num_workers": 0,
    "learning_rate": falling(3e-3, 3125),
    "policy": {"shared_trunk": True},
    "rollout_length": 8,
    "lag": 16,
}
EXPERIMENTS |= {
    "impala-lag": Experiment(
        algorithm="IMPALA", changes=LAG, **{**ASYNCHRONOUS, "gate": 475}
    ),
    "impala-lag-uncorrected": Experiment(
        algorithm="IMPALA",
        changes={**LAG, "vtrace": False},
        below=True,
        **{**ASYNCHRONOUS, "gate": 100},
    ),
}

# A game that is learnt in minutes, of smaller frames, by a smaller network. Random play
# scores 400 with a standard deviation of 270 (16 games).
EXPERIMENTS["ppo-kung-fu"] = Experiment(
    algorithm="PPO",
    env="ALE/KungFuMaster-v5",
    gate=1200,
    required=1.0,
    deterministic=False,
    episodes=16,
)
# Box2D, of the extra `box2d`: what counts as solved.
EXPERIMENTS["ppo-lunarlander"] = Experiment(
    algorithm="PPO", env="LunarLander-v3", gate=200, required=1.0
)
EXPERIMENTS.update(off_policy_experiments(Experiment))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument(
        "--only", choices=LIBRARIES, help="keep the other library's last runs"
    )
    parser.add_argument(
        "--steps", type=int, help="other than the experiment's, whose schedules stay"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "learning")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.experiments or list(EXPERIMENTS)
    for name in names:
        if name not in EXPERIMENTS:
            parser.error(f"unknown {name!r}; expected one of {', '.join(EXPERIMENTS)}")
    if arguments.worker is not None:
        library, seed = arguments.worker
        train = train_kerasrl if library == "kerasrl" else train_sb3
        experiment = EXPERIMENTS[names[0]]
        steps = arguments.steps or experiment.steps
        print(json.dumps(train(experiment, steps, int(seed))))
        return
    path = arguments.output.with_suffix(".json")
    report = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        report[name] = run_experiment(name, arguments, report.get(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n")
        arguments.output.with_suffix(".md").write_text(markdown(report) + "\n")
    print(markdown({name: report[name] for name in names}))
    trained = [name for name in names if "kerasrl" in report[name]["runs"]]
    if not all(judge(EXPERIMENTS[n], report[n]["runs"])[1] for n in trained):
        sys.exit(1)


def run_experiment(name, arguments, last):
    experiment = EXPERIMENTS[name]
    compared = [] if experiment.sb3 is None else LIBRARIES[1:]
    libraries = [
        library
        for library in (LIBRARIES[0], *compared)
        if arguments.only in (None, library)
    ]
    jobs = [(library, seed) for seed in range(arguments.seeds) for library in libraries]

    def run(job):
        library, seed = job
        command = [sys.executable, __file__, name, "--worker", library, str(seed)]
        if arguments.steps:
            command += ["--steps", str(arguments.steps)]
        environment = {
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **os.environ,
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name}, {library}, seed {seed}:\n{done.stderr}")
        result = json.loads(done.stdout.splitlines()[-1])
        summary = ", ".join(f"{key} {value:.1f}" for key, value in result.items())
        print(f"{name} {library} seed {seed}: {summary}", file=sys.stderr)
        return result

    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(run, jobs))
    by_library = {} if last is None or arguments.only is None else dict(last["runs"])
    for library in libraries:
        by_library[library] = [
            result
            for (of, _), result in zip(jobs, results, strict=True)
            if of == library
        ]
    return {
        "command": f"python benchmarks/learning.py {name} --seeds {arguments.seeds}",
        "steps": arguments.steps or experiment.steps,
        "runs": by_library,
    }


def judge(experiment, runs):
    """Says how many of our seeds reach the gate, and whether the experiment passes.

    Args:
        experiment: The `Experiment`.
        runs: Dict from library to list of results, one for each seed.

    Returns:
        Tuple of an integer and a bool.
    """
    ours = runs["kerasrl"]
    returns = [run[experiment.checkpoint] for run in ours]
    reached = sum(
        value < experiment.gate if experiment.below else value >= experiment.gate
        for value in returns
    )
    passed = reached >= experiment.required * len(returns) - 1e-9
    return reached, passed and not is_lower(ours, runs.get("stable_baselines3"))


def is_lower(ours, theirs):
    """Whether our training return is lower than theirs beyond the spread of seeds."""
    if not theirs:
        return False
    samples = [[run["training_return"] for run in runs] for runs in (ours, theirs)]
    if min(map(len, samples)) < 2:
        return False
    difference = statistics.mean(samples[0]) - statistics.mean(samples[1])
    error = sum(statistics.variance(each) / len(each) for each in samples) ** 0.5
    return difference < -2.0 * error


# The two libraries --------------------------------------------------------------


def train_kerasrl(experiment, steps, seed):
    class Episodes(kerasrl.callbacks.Callback):
        """Where on the axis of environment steps each episode ended, and its return."""

        def __init__(self):
            super().__init__()
            self.ends = []
            self.running = None

        def on_rollout_end(self, rollout):
            length, width = rollout.rewards.shape
            if self.running is None:
                self.running = np.zeros(self.agent.envs.num_envs)
            running = self.running[rollout.first_env :][:width]
            start = self.agent.env_steps - length * width
            ended = rollout.terminated | rollout.truncated
            for t in range(length):
                running += rollout.rewards[t]
                for index in np.flatnonzero(ended[t]):
                    self.ends.append((start + (t + 1) * width, running[index]))
                    running[index] = 0.0

    class Populations(kerasrl.callbacks.Callback):
        """The same, of episodes that are counted by the population."""

        def __init__(self):
            super().__init__()
            self.ends = []

        def on_train_batch_end(self, batch, logs=None):
            new = self.agent.episodes - len(self.ends)
            returns = list(self.agent.statistics.returns)[-new:]
            self.ends += [(self.agent.env_steps, each) for each in returns]

    agent = experiment.tuned.make_agent(seed)
    episodes = Episodes() if agent.learns_from_rollouts else Populations()
    callbacks = [episodes]
    with tempfile.TemporaryDirectory() as directory:
        best = Path(directory) / "best.kerasrl"
        if experiment.checkpoint == "best":
            callbacks.append(
                kerasrl.callbacks.PeriodicEvaluation(
                    experiment.env,
                    env_config=experiment.env_config,
                    every_steps=max(steps // experiment.evaluations, 1),
                    episodes=10,
                    seed=10_000 + seed,
                    best_path=best,
                )
            )
        history = agent.fit(
            experiment.env,
            steps=steps,
            env_config=experiment.env_config,
            num_envs=experiment.num_envs,
            num_workers=experiment.num_workers,
            callbacks=callbacks,
            verbose=0,
        )
        result = {
            "final": evaluate(agent, experiment, seed),
            "training_return": area(episodes.ends, steps),
            "steps_per_second": statistics.median(history.history["steps_per_second"]),
        }
        if experiment.checkpoint == "best":
            result["best"] = evaluate(kerasrl.load(best), experiment, seed)
    return result


def evaluate(agent, experiment, seed):
    env, seed = experiment.env, 20_000 + seed
    if experiment.measure == "success":
        return success_rate(agent, env, seed)
    result = agent.evaluate(
        env,
        episodes=experiment.episodes,
        deterministic=experiment.deterministic,
        env_config=experiment.env_config,
        seed=seed,
    )
    return float(result["return_mean"])


def success_rate(agent, env, seed):
    """Share of the first episodes of as many environments that end in success."""
    with kerasrl.make_envs(env, EVALUATION_EPISODES) as envs:
        observations = envs.reset(list(range(seed, seed + EVALUATION_EPISODES)))
        running = np.ones(EVALUATION_EPISODES, bool)
        successes = 0
        while running.any():
            step = envs.step(agent.predict(observations))
            observations = step.observations
            ended = (step.terminated | step.truncated) & running
            infos = [step.infos[index] for index in np.flatnonzero(ended)]
            successes += sum(bool(info["is_success"]) for info in infos)
            running &= ~ended
    return successes / EVALUATION_EPISODES


def train_sb3(experiment, steps, seed):
    import stable_baselines3
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.noise import NormalActionNoise
    from stable_baselines3.common.vec_env import VecNormalize

    class Episodes(BaseCallback):
        def __init__(self):
            super().__init__()
            self.ends = []

        def _on_step(self):
            for info in self.locals["infos"]:
                if "episode" in info:
                    self.ends.append((self.num_timesteps, info["episode"]["r"]))
            return True

    settings, ours = dict(experiment.sb3), experiment.settings
    rate = ours.optimizer.get("learning_rate")
    if isinstance(rate, dict):
        # It falls to 0, and so does the clip ratio of PPO.
        first = rate["config"]["initial_learning_rate"]
        settings["learning_rate"] = lambda remaining: first * remaining
        settings["clip_range"] = lambda remaining: 0.2 * remaining
    elif rate is not None:
        settings["learning_rate"] = rate
    if "noise_scale" in settings:
        scale = settings.pop("noise_scale")
        settings["action_noise"] = NormalActionNoise(np.zeros(1), np.full(1, scale))
    envs = make_vec_env(experiment.env, n_envs=experiment.num_envs, seed=seed)
    test = make_vec_env(experiment.env, n_envs=8, seed=20_000 + seed)
    observations = ours.policy.get("normalize_observations", False)
    rewards = ours.agent.get("normalize_rewards", False)
    if observations or rewards:
        gamma = ours.agent.get("gamma", 0.99)
        options = {"norm_obs": observations, "norm_reward": rewards, "gamma": gamma}
        envs = VecNormalize(envs, **options)
        test = VecNormalize(test, training=False, **{**options, "norm_reward": False})
        if observations:
            test.obs_rms = envs.obs_rms
    model = getattr(stable_baselines3, experiment.algorithm)(
        "MlpPolicy", envs, seed=seed, device="cpu", **settings
    )
    episodes = Episodes()
    model.learn(steps, callback=episodes)
    mean, _ = evaluate_policy(model, test, EVALUATION_EPISODES, deterministic=True)
    return {"final": float(mean), "training_return": area(episodes.ends, steps)}


def area(ends, steps, points=1000, window=100):
    """Mean over the run of the average return of the latest episodes.

    Args:
        ends: list of (environment step, return), in order.
        steps: environment steps of the run.
        points: at how many evenly spaced steps to look.
        window: how many episodes to average.

    Returns:
        float. Points before the first end of an episode are left out.
    """
    at, returns = (np.array(each, dtype="float64") for each in zip(*ends, strict=True))
    sums = np.concatenate([[0.0], np.cumsum(returns)])
    grid = np.linspace(0, steps, points + 1)[1:]
    counts = np.searchsorted(at, grid, side="right")
    counts = counts[counts > 0]
    starts = np.maximum(counts - window, 0)
    return float(np.mean((sums[counts] - sums[starts]) / (counts - starts)))


# The table ----------------------------------------------------------------------


def markdown(report):
    lines = [
        "| experiment | steps | gate | seeds that reach it | return by seed | training "
        "return | Stable-Baselines3's | its final returns | passed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, entry in report.items():
        experiment, runs = EXPERIMENTS[name], entry["runs"]
        if "kerasrl" not in runs:
            continue
        reached, passed = judge(experiment, runs)
        ours, theirs = runs["kerasrl"], runs.get("stable_baselines3")
        sign = "<" if experiment.below else ">="
        described = experiment.checkpoint
        if experiment.measure == "success":
            described += ", share of successes"
        cells = [
            f"{name} ({experiment.env}, {described})",
            f"{entry['steps']:,}",
            f"{sign} {experiment.gate:g} on {experiment.required:.0%}",
            f"{reached} of {len(ours)}",
            listed(ours, experiment.checkpoint, experiment.measure),
            spread(ours),
            spread(theirs) if theirs else "-",
            listed(theirs, "final") if theirs else "-",
            "yes" if passed else "no",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    commands = sorted({entry["command"] for entry in report.values()})
    note = "Training return: mean and standard deviation over the seeds."
    return "\n".join([*lines, "", note, "", *(f"`{command}`" for command in commands)])


def listed(runs, checkpoint, measure="return"):
    values = [run[checkpoint] for run in runs]
    digits = 2 if measure == "success" or max(map(abs, values)) < 10 else 0
    return ", ".join(f"{value:.{digits}f}" for value in values)


def spread(runs):
    values = [run["training_return"] for run in runs]
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


if __name__ == "__main__":
    main()
