"""Several policies outside of training: whole episodes, and single actions."""

import numpy as np
import optree

from kerasrl import checks
from kerasrl.agents import Agent
from kerasrl.multi_agent.arena import Arena, MultiAgentEpisode
from kerasrl.multi_agent.env import MultiEnvironments
from kerasrl.multi_agent.source import Table
from kerasrl.rollouts.evaluation import spread
from kerasrl.training import progress


def evaluate(
    agent, env, episodes, deterministic, seed, num_envs, env_config, verbose, seen=None
):
    """Implements `MultiAgent.evaluate`; `seen` is called with episodes that ended."""
    checks.choice("verbose", verbose, ("auto", 0, 1, 2))
    deterministic = checks.flag("deterministic", deterministic)
    episodes = checks.positive_integer("episodes", episodes)
    rng = np.random.default_rng(checks.seed(seed))
    if env is agent.fitted_env and hasattr(env, "step") and not isinstance(env, type):
        raise ValueError(
            "Received the very environment that fit is stepping. Evaluate on another: "
            "a name, a function that makes one, or a second instance."
        )
    if num_envs is None and (isinstance(env, (str, type)) or not hasattr(env, "step")):
        num_envs = min(episodes, 8)
    envs = MultiEnvironments(env, num_envs, env_config)
    try:
        agent.build(envs.observation_space, envs.action_space)
        seeds = rng.integers(2**31, size=(2, envs.num_envs)).tolist()
        table = Table(agent, envs, int(rng.integers(2**31)), deterministic, False)
        arena = Arena(envs, agent.find_policy, table, agent.reward, seeds)
        wanted, records, returns = spread(episodes, envs.num_envs), [], {}
        with progress.Evaluation(agent, episodes, verbose) as shown:
            arena.start()
            while any(wanted):
                for record, episode in arena.step():
                    if not wanted[record.env_index]:
                        continue
                    wanted[record.env_index] -= 1
                    records.append(record)
                    for name, value in episode.policy_returns().items():
                        returns.setdefault(name, []).append(value)
                    if seen is not None:
                        seen(episode)
                    shown.update(records)
    finally:
        envs.close()
    totals = [record.episode_return for record in records]
    return {
        "return_mean": float(np.mean(totals)),
        "return_std": float(np.std(totals)),
        "length_mean": float(np.mean([record.length for record in records])),
        "episodes": len(records),
        **{f"return_mean_{n}": float(np.mean(x)) for n, x in sorted(returns.items())},
    }


def predict(agent, observations, state, deterministic, seed, episode):
    """Implements `MultiAgent.predict`."""
    if not isinstance(observations, dict):
        raise ValueError(
            f"Received observations={observations!r:.200}. Expected a dict from agents "
            "to observations [N, ...]."
        )
    rng = np.random.default_rng(checks.seed(seed))
    if episode is None:
        episode = MultiAgentEpisode(0, 0, rng)
    actions, states = {}, {}
    for name, seen in observations.items():
        policy = agent.find_policy(name, episode)
        member = agent.agents[policy]
        own = None if state is None else state.get(name)
        if isinstance(member, Agent):
            drawn = None if seed is None else int(rng.integers(2**31))
            found = member.predict(seen, own, deterministic=deterministic, seed=drawn)
            if member.policy.is_recurrent:
                found, states[name] = found
            actions[name] = found
            continue
        if member.observation_space is None:
            raise ValueError(
                f"The policy {policy!r} was not set up yet. Call fit, evaluate or "
                "build first."
            )
        count = len(optree.tree_leaves(seen)[0])
        if own is None:
            own = member.get_initial_state(count)
        member.rng = rng
        actions[name], own, _ = member.compute_actions(seen, own)
        if optree.tree_leaves(own):
            states[name] = own
    has_memory = any(
        member.policy.is_recurrent
        for member in agent.learners.values()
        if member.policy.observation_space is not None
    )
    return (actions, states) if has_memory or states else actions
