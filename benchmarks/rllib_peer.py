"""Environment steps per second of RLlib's asynchronous algorithms, as JSON.

    python benchmarks/rllib_peer.py IMPALA [--seconds 30]

For an interpreter that has `ray[rllib]` and PyTorch and nothing of kerasrl: RLlib pins
another gymnasium. `asynchronous.py` runs it. The new API stack, CartPole-v1, 2 env
runners of 8 environments, the learner in the driver; all else is as RLlib has it.
"""

import argparse
import json
import time

import ray
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig

CONFIGS = {"IMPALA": IMPALAConfig, "APPO": APPOConfig}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithm", choices=CONFIGS)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
    config = (
        CONFIGS[arguments.algorithm]()
        .environment(arguments.env)
        .env_runners(num_env_runners=2, num_envs_per_env_runner=8)
        .learners(num_learners=0)
        .reporting(min_time_s_per_iteration=1)
    )
    algorithm = config.build_algo()
    result = algorithm.train()
    while not sampled(result):  # Its counters begin late.
        result = algorithm.train()
    first, start = sampled(result), time.perf_counter()
    while time.perf_counter() - start < arguments.seconds:
        result = algorithm.train()
    seconds = time.perf_counter() - start
    trained = result["learners"]["default_policy"]["num_module_steps_trained_lifetime"]
    print(
        json.dumps(
            {
                "steps_per_second": (sampled(result) - first) / seconds,
                "sampled": sampled(result),
                "trained": float(trained),
            }
        )
    )
    algorithm.stop()
    ray.shutdown()


def sampled(result):
    """Environment steps so far."""
    return float(result["env_runners"].get("num_env_steps_sampled_lifetime", 0.0))


if __name__ == "__main__":
    main()
