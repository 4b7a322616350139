"""How an agent comes into environments to learn in, and how it leaves them."""

from kerasrl.training import behavior, datasets, hyperparameters, mixing


def check_free(agent, output=None):
    """Refuses what need not wait for environments to be made.

    Args:
        agent: The `Agent`.
        output: Path of a directory that episodes are to be written into, or `None`.

    Raises:
        RuntimeError: The agent learns somewhere already.
        TypeError: It makes nothing that could be written.
    """
    if agent.envs is not None or agent.source is not None:
        raise RuntimeError(
            "This agent is being trained already. Wait for that fit to end, or close "
            "the generator that iterate or parallel_rollouts returned."
        )
    hyperparameters.check_kept(agent)
    if output is not None and not agent.learns_from_rollouts:
        raise TypeError(
            f"Received output={str(output)!r}. {type(agent).__name__} makes no "
            "rollouts that could be written. Write those of the trained agent: "
            "evaluate(env, output=...)."
        )


def enter(agent, envs, env, output=None):
    """Builds an agent for environments, and lets callbacks and others reach them.

    Args:
        agent: The `Agent`.
        envs: `kerasrl.envs.Environments`.
        env: What the user gave to make them of.
        output: Path of a directory that episodes are to be written into, or `None`.
    """
    agent.build(envs.observation_space, envs.action_space)
    agent.envs, agent.env_name, agent.fitted_env = envs, envs.name, env
    behavior.ask(agent, output is not None)
    agent.frames = None if envs.frames is None else list(envs.frames)


def leave(agent, envs):
    """Closes environments, and has the agent forget them, also what never began.

    Args:
        agent: The `Agent`.
        envs: `kerasrl.envs.Environments`, or `None` if there were none.
    """
    recorder = getattr(agent.source, "recorder", None)
    agent.envs = agent.source = agent.fitted_env = None
    agent.mixing = mixing.Unmixed()
    # Not the data that were read.
    agent.reading = datasets.state_of(agent.reading)
    agent.offline_reading = datasets.state_of(agent.offline_reading)
    behavior.ask(agent, False)
    try:
        if recorder is not None:
            recorder.close()
        agent.stop_learning()
    finally:
        if envs is not None:
            envs.close()
