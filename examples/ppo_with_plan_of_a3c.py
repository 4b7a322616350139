"""PPO's loss by A3C's plan: gradients at the weights that acted, applied as they come.

Run: python examples/ppo_with_plan_of_a3c.py --steps 100000 --workers 2
"""

import argparse

import kerasrl
from kerasrl import execution

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=100_000)
parser.add_argument("--workers", type=int, default=2)
args = parser.parse_args()
workers = {"num_envs": 8, "num_workers": args.workers, "mode": "async"}
agent = kerasrl.PPO(rollout_length=32, entropy_coef=0.01, max_grad_norm=0.5, seed=0)

rollouts = execution.parallel_rollouts(agent, "CartPole-v1", args.steps, **workers)
gradients = execution.async_gradients(agent, rollouts)
results = execution.apply_gradients(agent, gradients, update_all=False)
for logs in execution.report(agent, results, every=10_000):
    print(f"{logs['env_steps']} steps: {logs['episode_return_mean']:.1f}", flush=True)
