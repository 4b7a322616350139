"""Whole episodes, counted so that short ones are not favoured."""

import inspect
import itertools

import numpy as np


def play(collector, episodes, update=lambda records: None, record=None):
    """Plays whole episodes, shared out evenly over the environments.

    Args:
        collector: A `Collector` that was reset.
        episodes: Integer, how many.
        update: Called from time to time with the records of all episodes so far.
        record: Called with each rollout, or `None`.

    Returns:
        Dict of `return_mean`, `return_std`, `length_mean` and `episodes`.
    """
    wanted = spread(episodes, collector.envs.num_envs)
    records = []
    while any(wanted):
        rollout = collector.collect()
        if record is not None:
            record(rollout)
        for ended in collector.drain_episodes():
            if wanted[ended.env_index]:
                wanted[ended.env_index] -= 1
                records.append(ended)
        update(records)
    returns = [record.episode_return for record in records]
    return {
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "length_mean": float(np.mean([record.length for record in records])),
        "episodes": len(records),
    }


def spread(total, parts):
    """Shares an integer out as evenly as possible.

    Example:

    ```python
    spread(10, 4)  # [3, 3, 2, 2]
    ```
    """
    size, rest = divmod(total, parts)
    return list(
        itertools.chain([size + 1] * rest, itertools.repeat(size, parts - rest))
    )


def evaluate(policy, env, episodes=10, **arguments):
    """Runs whole episodes of whatever acts, without learning.

    Args:
        policy: A `kerasrl.Agent`, a `kerasrl.ScriptedPolicy`, or a function of
            observations `[N, ...]` that returns actions `[N, ...]`.
        env: As for `kerasrl.Agent.fit`.
        episodes: Integer, shared out evenly over the environments.
        **arguments: As for the `evaluate` of the agent or policy, such as `seed`,
            `num_envs` and `env_config`.

    Returns:
        Dict with `return_mean`, `return_std`, `length_mean` (environment steps) and
        `episodes`.

    Raises:
        TypeError: It is none of these.

    Example:

    ```python
    def lean(observations):
        return (observations[:, 2] > 0).astype(int)

    kerasrl.evaluate(lean, "CartPole-v1", episodes=20)["return_mean"]  # about 42
    ```
    """
    from kerasrl.rollouts.scripted import FunctionPolicy

    # Every Keras model has an `evaluate`, which takes something else.
    evaluates = "env" in _arguments(getattr(policy, "evaluate", None))
    is_model = hasattr(policy, "evaluate") and not evaluates
    if isinstance(policy, type) or is_model or not (evaluates or callable(policy)):
        hint = ""
        if is_model:
            hint = " A Keras model is none of them: make it the policy of an agent."
        raise TypeError(
            f"Received policy={policy!r}. Expected a kerasrl.Agent, a "
            "kerasrl.ScriptedPolicy, or a function from observations to actions."
            f"{hint}"
        )
    if not evaluates:
        policy = FunctionPolicy(policy)
    return policy.evaluate(env, episodes=episodes, **arguments)


def _arguments(method):
    return () if method is None else inspect.signature(method).parameters
