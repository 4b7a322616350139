"""Learning to published thresholds, over several seeds.

    python benchmarks/learning.py [EXPERIMENT ...] [--seeds 5] [--jobs 1]

Each experiment trains one algorithm on one environment with one seed per process, and
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

RESULTS = Path(__file__).parent / "results"
EVALUATION_EPISODES = 100
LIBRARIES = ("kerasrl", "stable_baselines3")


@dataclass(frozen=True)
class Experiment:
    """What to train and what it must reach.

    `gate` is compared with the `measure` of `checkpoint` ("final" or "best");
    `required` is the share of the seeds that must reach it. With `below`, they must
    stay below it instead.
    """

    algorithm: str
    env: str
    steps: int
    gate: float
    required: float
    checkpoint: str = "final"
    below: bool = False
    #: How many evaluations choose the best.
    evaluations: int = 20
    num_envs: int = 8
    #: Worker processes, which for some algorithms act while the learner learns.
    num_workers: int = 0
    learning_rate: float | None = None
    anneal: bool = False
    #: First epsilon, environment steps of its fall, last epsilon.
    exploration: tuple | None = None
    env_config: dict | None = None
    #: How many episodes the policies at the end, and the best, are evaluated on.
    episodes: int = EVALUATION_EPISODES
    #: Whether it is evaluated by the modes of its distributions.
    deterministic: bool = True
    #: What evaluations measure: the mean "return", or the share of episodes that end
    #: in "success", which infos say as `is_success`.
    measure: str = "return"
    settings: dict = field(default_factory=dict)
    policy: dict = field(default_factory=dict)
    #: The same for Stable-Baselines3, if it is to be compared.
    sb3: dict | None = None


#: rl-baselines3-zoo's hyperparameters of PPO for CartPole.
ZOO_CARTPOLE = {
    "rollout_length": 32,
    "num_epochs": 20,
    "minibatch_size": 256,
    "gamma": 0.98,
    "gae_lambda": 0.8,
}

#: Near those with which sb3-contrib tests its recurrent PPO on CartPole without
#: velocities.
RECURRENT = {
    "rollout_length": 128,
    "num_epochs": 10,
    "minibatch_size": 256,
    "gae_lambda": 0.98,
    "max_grad_norm": 1.0,
    "normalize_rewards": True,
}

#: Choices of two parts that must agree, on something else than last time.
AGREEMENT = {"env": "Agreement-v1", "required": 1.0, "deterministic": False}
#: One takes many steps on each rollout. With less entropy, the other may end with two
#: choices of four.
AGREEMENT_PPO = {"settings": {"gamma": 0.9, "entropy_coef": 0.01}, **AGREEMENT}
AGREEMENT_A2C = {"settings": {"gamma": 0.9, "entropy_coef": 0.05}, **AGREEMENT}

EXPERIMENTS = {
    "ppo-cartpole": Experiment(
        algorithm="PPO",
        env="CartPole-v1",
        steps=100_000,
        gate=475,
        required=1.0,
        learning_rate=1e-3,
        anneal=True,
        settings=ZOO_CARTPOLE,
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
        steps=100_000,
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
        steps=200_000,
        gate=475,
        required=0.8,
        checkpoint="best",
        # Its defaults are ours: RMSprop with epsilon outside the root, 7e-4.
        sb3={},
    ),
    # Their defaults, but for the number of environments, which changes nothing.
    "es-cartpole": Experiment(
        algorithm="ES",
        env="CartPole-v1",
        steps=120_000,
        gate=475,
        required=1.0,
        num_envs=32,
        num_workers=2,
        episodes=20,
    ),
    "ars-cartpole": Experiment(
        algorithm="ARS",
        env="CartPole-v1",
        steps=25_000,
        gate=475,
        required=1.0,
        num_workers=2,
        episodes=20,
    ),
    "pg-cartpole": Experiment(
        algorithm="PG",
        env="CartPole-v1",
        steps=200_000,
        gate=400,
        required=0.8,
        checkpoint="best",
    ),
    "ppo-pendulum": Experiment(
        algorithm="PPO",
        env="Pendulum-v1",
        steps=100_000,
        gate=-250,
        required=0.8,
        num_envs=4,
        learning_rate=1e-3,
        anneal=True,
        settings={
            "rollout_length": 256,
            "num_epochs": 10,
            "minibatch_size": 64,
            "gamma": 0.9,
            "gae_lambda": 0.95,
            "normalize_rewards": True,
        },
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
        steps=100_000,
        gate=-250,
        required=0.8,
        num_envs=4,
        learning_rate=1e-3,
        anneal=True,
        settings={
            "rollout_length": 256,
            "num_epochs": 10,
            "minibatch_size": 64,
            "gamma": 0.9,
            "gae_lambda": 0.95,
            "normalize_rewards": True,
        },
        policy={"noise_steps": 4},
    ),
    "ppo-acrobot": Experiment(
        algorithm="PPO",
        env="Acrobot-v1",
        steps=200_000,
        gate=-100,
        required=0.8,
        learning_rate=3e-4,
        policy={"normalize_observations": True},
        settings={"gae_lambda": 0.94},
        sb3={"n_steps": 128, "n_epochs": 10, "batch_size": 256, "gae_lambda": 0.94},
    ),
    "ppo-recurrent": Experiment(
        algorithm="PPO",
        env="StatelessCartPole-v1",
        steps=100_000,
        gate=450,
        required=0.6,
        learning_rate=1e-3,
        anneal=True,
        # The cell sees observations directly, as in sb3-contrib. The feed-forward
        # policy below keeps its two layers: without them it would be linear.
        policy={"cell": "lstm", "hidden_units": (), "normalize_observations": True},
        settings=RECURRENT,
    ),
    # 0.95 of the best return of a policy without memory, 7.5.
    "ppo-agreement": Experiment(
        algorithm="PPO",
        steps=60_000,
        gate=7.125,
        policy={"autoregressor": "made"},
        **AGREEMENT_PPO,
    ),
    "a2c-agreement": Experiment(
        algorithm="A2C",
        steps=100_000,
        gate=7.125,
        policy={"autoregressor": "made"},
        **AGREEMENT_A2C,
    ),
    # Independent parts get 2.5 at best; this is that and the noise of 100 episodes.
    "ppo-agreement-independent": Experiment(
        algorithm="PPO", steps=60_000, gate=2.8, below=True, **AGREEMENT_PPO
    ),
    "a2c-agreement-independent": Experiment(
        algorithm="A2C", steps=100_000, gate=2.8, below=True, **AGREEMENT_A2C
    ),
    "ppo-recurrent-feed-forward": Experiment(
        algorithm="PPO",
        env="StatelessCartPole-v1",
        steps=100_000,
        gate=150,
        required=1.0,
        below=True,
        learning_rate=1e-3,
        anneal=True,
        policy={"normalize_observations": True},
        settings=RECURRENT,
    ),
}

# Algorithms that learn from older weights, of workers that act meanwhile.
ASYNCHRONOUS = {
    "env": "CartPole-v1",
    "steps": 200_000,
    "gate": 450,
    "required": 1.0,
    "num_workers": 2,
    "anneal": True,
}
EXPERIMENTS |= {
    "a3c-cartpole": Experiment(algorithm="A3C", learning_rate=3e-3, **ASYNCHRONOUS),
    "impala-cartpole": Experiment(
        algorithm="IMPALA", learning_rate=3e-3, **ASYNCHRONOUS
    ),
    "appo-cartpole": Experiment(algorithm="APPO", learning_rate=2e-3, **ASYNCHRONOUS),
    "impala-stateless": Experiment(
        algorithm="IMPALA",
        learning_rate=2e-3,
        policy={
            "cell": "lstm",
            "normalize_observations": True,
            "shared_trunk": False,
        },
        settings={
            "rollout_length": 32,
            "trace_lambda": 0.95,
            "normalize_rewards": True,
        },
        **{**ASYNCHRONOUS, "env": "StatelessCartPole-v1", "gate": 400},
    ),
}
# With a lag of exactly 16 updates; and what comes of that without V-trace.
LAG = {
    **ASYNCHRONOUS,
    "num_workers": 0,
    "learning_rate": 3e-3,
    "policy": {"shared_trunk": True},
}
EXPERIMENTS |= {
    "impala-lag": Experiment(
        algorithm="IMPALA",
        settings={"rollout_length": 8, "lag": 16},
        **{**LAG, "gate": 475},
    ),
    "impala-lag-uncorrected": Experiment(
        algorithm="IMPALA",
        settings={"rollout_length": 8, "lag": 16, "vtrace": False},
        below=True,
        **{**LAG, "gate": 100},
    ),
}

# A game that is learnt in minutes, of smaller frames, by a smaller network. Random play
# scores 400 with a standard deviation of 270 (16 games).
EXPERIMENTS["ppo-kung-fu"] = Experiment(
    algorithm="PPO",
    env="ALE/KungFuMaster-v5",
    env_config={"preset": "deepmind", "img_height": 42, "img_width": 42},
    steps=80_000,
    gate=1200,
    required=1.0,
    deterministic=False,
    episodes=16,
    learning_rate=5e-4,
    settings={
        "rollout_length": 64,
        "num_epochs": 3,
        "minibatch_size": 128,
        "entropy_coef": 0.01,
        "clip_ratio": 0.1,
    },
    policy={"filters": ((16, 4, 2), (32, 4, 2)), "hidden_units": (256,)},
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
    parser.add_argument("--steps", type=int, help="other than the experiment's")
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


def make_agent(experiment, steps, seed):
    """The agent of an experiment, with its optimizer and schedules."""
    import keras

    import kerasrl

    settings = dict(experiment.settings)
    if experiment.anneal and experiment.algorithm == "PPO":
        schedule = keras.optimizers.schedules.PolynomialDecay(0.2, steps, 0.0)
        settings["clip_ratio"] = schedule
    if experiment.exploration is not None:
        first, fall, last = experiment.exploration
        schedule = keras.optimizers.schedules.PolynomialDecay(first, fall, last)
        settings["exploration"] = schedule
    agent = getattr(kerasrl, experiment.algorithm)(
        policy=dict(experiment.policy) or None, seed=seed, **settings
    )
    if experiment.learning_rate is not None:
        rate = experiment.learning_rate
        if experiment.anneal:
            per_iteration = agent.rollout_length * experiment.num_envs
            if not agent.synchronous:  # It learns from one worker at a time.
                per_iteration //= max(1, experiment.num_workers)
            updates = 1
            if hasattr(agent, "num_epochs"):
                minibatches = -(-per_iteration // agent.minibatch_size)
                updates = agent.num_epochs * minibatches
            updates *= -(-steps // per_iteration)
            rate = keras.optimizers.schedules.PolynomialDecay(rate, updates, 0.0)
        optimizer = agent.default_optimizer().get_config()
        optimizer["learning_rate"] = rate
        agent.compile(type(agent.default_optimizer()).from_config(optimizer))
    return agent


def train_kerasrl(experiment, steps, seed):
    import kerasrl

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

    agent = make_agent(experiment, steps, seed)
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
    import kerasrl

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

    settings = dict(experiment.sb3)
    if experiment.learning_rate is not None:
        rate = experiment.learning_rate
        settings["learning_rate"] = rate
        if experiment.anneal:
            settings["learning_rate"] = lambda remaining: rate * remaining
            settings["clip_range"] = lambda remaining: 0.2 * remaining
    if "noise_scale" in settings:
        scale = settings.pop("noise_scale")
        settings["action_noise"] = NormalActionNoise(np.zeros(1), np.full(1, scale))
    envs = make_vec_env(experiment.env, n_envs=experiment.num_envs, seed=seed)
    test = make_vec_env(experiment.env, n_envs=8, seed=20_000 + seed)
    observations = experiment.policy.get("normalize_observations", False)
    rewards = experiment.settings.get("normalize_rewards", False)
    if observations or rewards:
        gamma = experiment.settings.get("gamma", 0.99)
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
