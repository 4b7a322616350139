"""Several policies outside of training: whole episodes, and single actions."""

import functools

import numpy as np
import optree

from kerasrl import checks
from kerasrl.agents import Agent
from kerasrl.multi_agent.arena import Arena, MultiAgentEpisode
from kerasrl.multi_agent.env import MultiEnvironments
from kerasrl.multi_agent.table import Table
from kerasrl.rollouts.evaluation import spread
from kerasrl.training import progress


def evaluate(agent, making, episodes, deterministic, seed, verbose, mapping):
    """Implements `MultiAgent.evaluate`; `making` are the arguments of environments."""
    env, num_envs, env_config = making
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
        seeds = rng.integers(2**31, size=(2, envs.num_envs)).tolist()
        table = Table(agent, envs, int(rng.integers(2**31)), deterministic)
        find = functools.partial(agent.find_by, mapping)
        arena = Arena(envs, find, table, agent.reward, seeds)
        wanted, records, scores = spread(episodes, envs.num_envs), [], {}
        with progress.Evaluation(agent, episodes, verbose) as shown:
            arena.start()
            while any(wanted):
                for record, episode in arena.step():
                    if not wanted[record.env_index]:
                        continue
                    wanted[record.env_index] -= 1
                    records.append(record)
                    _score(episode.policy_returns(), scores)
                    shown.update(records)
    finally:
        envs.close()
    totals = [record.episode_return for record in records]
    return {
        "return_mean": float(np.mean(totals)),
        "return_std": float(np.std(totals)),
        "length_mean": float(np.mean([record.length for record in records])),
        "episodes": len(records),
        **{name: float(np.mean(each)) for name, each in sorted(scores.items())},
    }


def _score(returns, scores):
    """Adds what the policies of one episode got to lists, by what it is called."""
    for name, value in returns.items():
        scores.setdefault(f"return_mean_{name}", []).append(value)
        others = [other for key, other in returns.items() if key != name]
        if others:
            best = max(others)
            scores.setdefault(f"win_rate_{name}", []).append(value > best)
            scores.setdefault(f"draw_rate_{name}", []).append(value == best)


def predict(agent, observations, state, deterministic, seed, episode, previous):
    """Implements `MultiAgent.predict`; `previous` is a pair of actions and rewards."""
    names = ("observations", "previous_actions", "previous_rewards")
    for name, given in zip(names, (observations, *previous), strict=True):
        if not (isinstance(given, dict) or (given is None and name in names[1:])):
            raise ValueError(
                f"Received {name}={given!r:.200}. Expected a dict from agents to "
                f"{name.replace('_', ' ')} [N, ...]."
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
            before = [(each or {}).get(name) for each in previous]
            found = member.predict(seen, own, *before, deterministic, drawn)
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
