"""How several policies learn, each by itself, and what they log."""

from kerasrl.training import statistics


def learn_from(agent, rollout):
    """Implements `MultiAgent.learn_from`."""
    agent.agent_steps += rollout.agent_steps
    logs, losses = {}, []
    for name, each in rollout.rollouts.items():
        member, own = agent.agents[name], statistics.Mean()
        member.source = agent.source
        member.progress = agent.progress
        for part in each:
            member.env_steps += part.num_steps
            own.add(member.learn_from(part) or {})
            member.iterations += 1
        found = own.result()
        logs.update({f"{key}_{name}": value for key, value in found.items()})
        if "loss" in found:
            losses.append(found["loss"])
    return {**({"loss": sum(losses) / len(losses)} if losses else {}), **logs}


def drain_logs(agent):
    """Implements `MultiAgent.drain_logs`."""
    logs = {"agent_steps": float(agent.agent_steps)}
    for name, member in agent.learners.items():
        if member.policy.observation_space is None or not agent.trains(name):
            continue
        found = member.drain_logs()
        if statistics.has_metrics(member.policy):
            found.update(statistics.policy_metrics(member.policy))
            member.policy.reset_metrics()
        rate = member.policy.optimizer.learning_rate
        found["learning_rate"] = float(rate)
        found["policy_steps"] = float(member.env_steps)
        logs.update({f"{key}_{name}": value for key, value in found.items()})
    for name, member in agent.opponents.items():
        found = member.drain_logs()
        logs.update({f"{key}_{name}": value for key, value in found.items()})
    return logs
