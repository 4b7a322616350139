"""Environment steps per second while training, against Stable-Baselines3.

    python benchmarks/throughput.py [--presets ppo a2c] [--rounds 5] [--cores 1]

The two libraries train the same algorithm on the same environment with the same
hyperparameters, each in processes of its own, in turn (A B A B ...), so that a machine
that slows down slows both. A process trains a little first (imports, compilation), then
the clock runs over one more call of `fit` or `learn`. The table has the median of the
rounds, and the ratio of the medians.

With `--cores`, both run on that many cores only, which both libraries notice and start
as many threads. Networks as small as A2C's here gain from one core: handing a share of
an update to a second one and waiting for it takes longer than doing it.

Each process of kerasrl also reports the seconds from `import kerasrl` to the end of the
first iteration.

Needs the extra `bench`: `pip install -e ".[bench]"`.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("kerasrl", "stable_baselines3")
PACKAGES = (
    "kerasrl",
    "keras",
    "tensorflow",
    "tensorflow_cpu",
    "gymnasium",
    "numpy",
    "stable_baselines3",
    "sb3_contrib",
    "torch",
)

PRESETS = {
    "ppo": {
        "algorithm": "PPO",
        "env": "CartPole-v1",
        "num_envs": 8,
        "kerasrl": {"rollout_length": 128, "minibatch_size": 256, "num_epochs": 4},
        "stable_baselines3": {"n_steps": 128, "batch_size": 256, "n_epochs": 4},
        "warm_up": 4096,
        "steps": 100_000,
    },
    # Both with a cell of 64 units for the policy and one for the value.
    "ppo-recurrent": {
        "algorithm": "PPO",
        "env": "CartPole-v1",
        "num_envs": 8,
        "kerasrl": {
            "policy": {"cell": "lstm", "cell_units": 64},
            "rollout_length": 128,
            "minibatch_size": 256,
            "num_epochs": 10,
        },
        "stable_baselines3": {
            "n_steps": 128,
            "batch_size": 256,
            "n_epochs": 10,
            "policy_kwargs": {"lstm_hidden_size": 64},
        },
        "their_algorithm": ("sb3_contrib", "RecurrentPPO", "MlpLstmPolicy"),
        "warm_up": 2048,
        "steps": 16_384,
    },
    "a2c": {
        "algorithm": "A2C",
        "env": "CartPole-v1",
        "num_envs": 8,
        "kerasrl": {"rollout_length": 5},
        "stable_baselines3": {"n_steps": 5},
        "warm_up": 2000,
        "steps": 100_000,
    },
    # One gradient step for four environment steps, in one environment.
    "dqn": {
        "algorithm": "DQN",
        "env": "CartPole-v1",
        "num_envs": 1,
        "kerasrl": {"batch_size": 64, "train_every": 4, "learning_starts": 1000},
        "stable_baselines3": {
            "batch_size": 64,
            "train_freq": 4,
            "learning_starts": 1000,
            "buffer_size": 100_000,
        },
        "warm_up": 3000,
        "steps": 40_000,
    },
    # The same ratio in eight environments at once.
    "dqn-8": {
        "algorithm": "DQN",
        "env": "CartPole-v1",
        "num_envs": 8,
        "kerasrl": {"batch_size": 64, "train_every": 4, "learning_starts": 1000},
        "stable_baselines3": {
            "batch_size": 64,
            "train_freq": 1,
            "gradient_steps": 2,
            "learning_starts": 1000,
            "buffer_size": 100_000,
        },
        "warm_up": 3000,
        "steps": 40_000,
    },
}

# One gradient step of 256 for each environment step.
for _algorithm in ("SAC", "TD3", "DDPG"):
    PRESETS[_algorithm.lower()] = {
        "algorithm": _algorithm,
        "env": "Pendulum-v1",
        "num_envs": 1,
        "kerasrl": {"batch_size": 256, "learning_starts": 500},
        "stable_baselines3": {
            "batch_size": 256,
            "learning_starts": 500,
            "buffer_size": 100_000,
            "learning_rate": 1e-3,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
        "warm_up": 1000,
        "steps": 5_000,
    }

# Pong by DeepMind's protocol, with the same networks: what a step costs is mostly what
# the convolutions do. Double Q-learning, which Stable-Baselines3 has not, is left out.
for _name, _algorithm, _kerasrl, _stable_baselines3 in (
    (
        "ppo-pong",
        "PPO",
        {"rollout_length": 128, "minibatch_size": 256, "num_epochs": 4},
        {"n_steps": 128, "batch_size": 256, "n_epochs": 4},
    ),
    (
        "dqn-pong",
        "DQN",
        {
            "double": False,
            "batch_size": 32,
            "train_every": 4,
            "learning_starts": 1000,
            "buffer_size": 20_000,
        },
        {
            "batch_size": 32,
            "train_freq": 1,
            "gradient_steps": 2,
            "learning_starts": 1000,
            "buffer_size": 20_000,
        },
    ),
):
    PRESETS[_name] = {
        "algorithm": _algorithm,
        "env": "ALE/Pong-v5",
        "env_config": {"preset": "deepmind"},
        "atari": "PongNoFrameskip-v4",
        "num_envs": 8,
        "kerasrl": _kerasrl,
        "stable_baselines3": _stable_baselines3,
        "warm_up": 1024,
        "steps": 4_096,
    }

# Those above have our defaults, but for what makes the two alike. These gather more.
for _name in ("dqn", "dqn-8", "sac", "td3", "ddpg"):
    _preset = PRESETS[_name]
    PRESETS[f"{_name}-gathered"] = {
        **_preset,
        "kerasrl": {**_preset["kerasrl"], "updates_per_call": 32},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--steps", type=int, help="other than the preset's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, help="to run on; all if left out (Linux)")
    parser.add_argument("--output", type=Path, default=RESULTS / "throughput")
    parser.add_argument("--worker", choices=LIBRARIES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cores is not None:
        use_cores(arguments.cores)
    if arguments.worker is not None:
        measure = measure_kerasrl if arguments.worker == "kerasrl" else measure_sb3
        print(json.dumps(measure(PRESETS[arguments.presets[0]], arguments)))
        return
    path = arguments.output.with_suffix(".json")
    report = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    cores = f" --cores {arguments.cores}" if arguments.cores else ""
    steps = f" --steps {arguments.steps}" if arguments.steps else ""
    names = {name: name + cores for name in arguments.presets}
    for name, entry in names.items():
        report[entry] = {
            "command": f"python benchmarks/throughput.py --presets {name} "
            f"--rounds {arguments.rounds}{steps}{cores}",
            "preset": name,
            "cores": arguments.cores or os.cpu_count(),
            "steps": arguments.steps or PRESETS[name]["steps"],
            "machine": describe_machine(),
            "versions": versions(),
            "measurements": run_preset(name, arguments),
        }
        path.write_text(json.dumps(report, indent=2) + "\n")
        arguments.output.with_suffix(".md").write_text(markdown(report) + "\n")
    print(markdown({entry: report[entry] for entry in names.values()}))


def use_cores(number):
    """Restricts this process, and those it starts, to its first cores."""
    if not hasattr(os, "sched_setaffinity"):
        sys.exit(f"--cores works on Linux only; this is {platform.system()}")
    available = sorted(os.sched_getaffinity(0))
    if not 1 <= number <= len(available):
        sys.exit(f"Received --cores {number}. Expected 1 to {len(available)}.")
    os.sched_setaffinity(0, available[:number])


def run_preset(name, arguments):
    """Rounds of both libraries in turn: `{library: [measurement, ...]}`."""
    measurements = {library: [] for library in LIBRARIES}
    for number in range(arguments.rounds):
        for library in LIBRARIES:
            command = [
                *(sys.executable, __file__, "--worker", library, "--presets", name),
            ]
            if arguments.steps:
                command += ["--steps", str(arguments.steps)]
            environment = {
                "KERAS_BACKEND": "tensorflow",
                "TF_CPP_MIN_LOG_LEVEL": "3",
                **os.environ,
            }
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(f"{library} failed:\n{done.stderr}")
            measurement = json.loads(done.stdout.splitlines()[-1])
            measurements[library].append(measurement)
            rate = measurement["steps_per_second"]
            print(
                f"{name} round {number + 1}: {library} {rate:,.0f} steps/s",
                file=sys.stderr,
            )
    return measurements


def measure_kerasrl(preset, arguments):
    start = time.perf_counter()
    import kerasrl

    agent = getattr(kerasrl, preset["algorithm"])(seed=0, **preset["kerasrl"])
    settings = {"num_envs": preset["num_envs"], "verbose": 0}
    settings["env_config"] = preset.get("env_config")
    agent.fit(preset["env"], steps=1, **settings)
    first_iteration = time.perf_counter() - start
    agent.fit(preset["env"], steps=preset["warm_up"], **settings)
    steps, start = agent.env_steps, time.perf_counter()
    agent.fit(preset["env"], steps=arguments.steps or preset["steps"], **settings)
    seconds = time.perf_counter() - start
    return {
        "steps_per_second": (agent.env_steps - steps) / seconds,
        "import_to_first_iteration_s": first_iteration,
    }


def measure_sb3(preset, arguments):
    from stable_baselines3.common.env_util import make_atari_env, make_vec_env
    from stable_baselines3.common.vec_env import VecFrameStack

    default = ("stable_baselines3", preset["algorithm"], "MlpPolicy")
    library, algorithm, policy = preset.get("their_algorithm", default)
    number = {"n_envs": preset["num_envs"], "seed": 0}
    if "atari" in preset:
        import ale_py  # noqa: F401  # Registers the games.

        policy = "CnnPolicy"
        envs = VecFrameStack(make_atari_env(preset["atari"], **number), 4)
    else:
        envs = make_vec_env(preset["env"], **number)
    model = getattr(importlib.import_module(library), algorithm)(
        policy, envs, seed=0, device="cpu", **preset["stable_baselines3"]
    )
    model.learn(preset["warm_up"])
    steps, start = model.num_timesteps, time.perf_counter()
    model.learn(arguments.steps or preset["steps"], reset_num_timesteps=False)
    seconds = time.perf_counter() - start
    return {"steps_per_second": (model.num_timesteps - steps) / seconds}


def markdown(report):
    lines = [
        "| preset | cores | kerasrl steps/s (least, most) | Stable-Baselines3 steps/s "
        "(least, most) | ratio of medians | rounds | import to first iteration |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in report.values():
        measurements, preset = entry["measurements"], PRESETS[entry["preset"]]
        ours, theirs = (
            [each["steps_per_second"] for each in measurements[library]]
            for library in LIBRARIES
        )
        starts = [
            each["import_to_first_iteration_s"] for each in measurements["kerasrl"]
        ]
        settings = ", ".join(f"{key} {v}" for key, v in preset["kerasrl"].items())
        ratio = statistics.median(ours) / statistics.median(theirs)
        lines.append(
            f"| {preset['algorithm']} on {preset['env']}, {preset['num_envs']} envs, "
            f"{entry['steps']:,} steps ({settings}) | {entry['cores']} | "
            f"{spread(ours)} | {spread(theirs)} | {ratio:.2f} | {len(ours)} | "
            f"{statistics.median(starts):.1f} s |"
        )
    machines = {
        f"{entry['machine']}; "
        + ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
        for entry in report.values()
    }
    commands = (f"`{entry['command']}`" for entry in report.values())
    return "\n".join([*lines, "", *sorted(machines), "", *commands])


def spread(values):
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}, {max(values):,.0f})"


def describe_machine():
    return f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}"


def versions():
    from importlib.metadata import PackageNotFoundError, version

    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
