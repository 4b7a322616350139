"""Agent steps per second of peers on simple_spread_v3, as JSON.

    python benchmarks/multi_agent_peer.py rllib [--seconds 30]
    python benchmarks/multi_agent_peer.py sb3 [--seconds 30]

For an interpreter that has `ray[rllib]`, `stable-baselines3`, `supersuit`, `mpe2` and
PyTorch and nothing of kerasrl. `multi_agent_speed.py` runs it. One PPO for three
agents, 8 environments, two processes that step them, updates of 10 epochs over 2,400
steps of agents in minibatches of 600, two layers of 64 tanh units.
"""

import argparse
import json
import multiprocessing
import os
import time

ENVS, STEPS, MINIBATCH, EPOCHS = 8, 2400, 600, 10


def rllib(seconds):
    """The new API stack, the learner in the driver."""
    import ray
    from mpe2 import simple_spread_v3
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
    from ray.tune import register_env

    register_env(
        "spread", lambda _: ParallelPettingZooEnv(simple_spread_v3.parallel_env())
    )
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
    model = DefaultModelConfig(fcnet_hiddens=[64, 64], fcnet_activation="tanh")
    config = (
        PPOConfig()
        .environment("spread")
        .env_runners(num_env_runners=2, num_envs_per_env_runner=ENVS // 2)
        .multi_agent(
            policies={"main"},
            policy_mapping_fn=lambda *args, **kwargs: "main",
            count_steps_by="agent_steps",
        )
        .rl_module(
            rl_module_spec=MultiRLModuleSpec(
                rl_module_specs={"main": RLModuleSpec(model_config=model)}
            )
        )
        .training(
            train_batch_size_per_learner=STEPS,
            minibatch_size=MINIBATCH,
            num_epochs=EPOCHS,
            gamma=0.95,
        )
        .learners(num_learners=0)
        .evaluation(evaluation_interval=None)
    )
    algorithm = config.build_algo()
    algorithm.train()
    algorithm.train()

    def count(result):
        runners = result["env_runners"]
        agents = runners["num_agent_steps_sampled_lifetime"]
        return float(sum(agents.values()))

    result = algorithm.train()
    first, start = count(result), time.perf_counter()
    while time.perf_counter() - start < seconds:
        result = algorithm.train()
    speed = (count(result) - first) / (time.perf_counter() - start)
    iterations = algorithm.iteration - 3
    algorithm.stop()
    ray.shutdown()
    steps = (count(result) - first) / iterations
    return {"agent_steps_per_second": speed, "agent_steps_per_iteration": steps}


def sb3(seconds):
    """SuperSuit makes each agent an environment of its own."""
    import supersuit
    import torch
    from mpe2 import simple_spread_v3
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback

    torch.set_num_threads(1)
    env = supersuit.pettingzoo_env_to_vec_env_v1(simple_spread_v3.parallel_env())
    env = supersuit.concat_vec_envs_v1(
        env, ENVS, num_cpus=2, base_class="stable_baselines3"
    )

    class Clock(BaseCallback):
        start = begun = None

        def _on_rollout_start(self):
            now = time.perf_counter()
            if self.begun is None and self.num_timesteps >= 2 * STEPS:
                self.start, self.begun = now, self.num_timesteps
            elif self.begun is not None and now - self.start > seconds:
                done = self.num_timesteps - self.begun
                self.speed = done / (now - self.start)

        def _on_step(self):
            return not hasattr(self, "speed")

    clock = Clock()
    agent = PPO(
        "MlpPolicy",
        env,
        n_steps=STEPS // (3 * ENVS),
        batch_size=MINIBATCH,
        n_epochs=EPOCHS,
        gamma=0.95,
        device="cpu",
    )
    agent.learn(10**9, callback=clock)
    return {"agent_steps_per_second": clock.speed, "agent_steps_per_iteration": STEPS}


PEERS = {"rllib": rllib, "sb3": sb3}


def main():
    """Prints what the last line of output is read for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    print(json.dumps(PEERS[arguments.peer](arguments.seconds)), flush=True)
    # SuperSuit's processes wait for each other for ever.
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(0)


if __name__ == "__main__":
    main()
