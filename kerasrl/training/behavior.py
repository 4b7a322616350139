"""How probable actions were to who chose them, and where that is written."""

from keras import ops

from kerasrl import offline
from kerasrl.offline.recording import Recorder, RolloutEpisodes
from kerasrl.rollouts.rollout import BEHAVIOR_LOG_PROBS


def log_probs(agent, inputs, outputs, actions):
    """Returns log-probabilities of actions as they were drawn while exploring.

    Args:
        agent: An `Agent`.
        inputs: Dict, the inputs of acting.
        outputs: Dict, what the policy returned for them.
        actions: Tree `[N, ...]`, what was chosen.

    Returns:
        Dict of float32 `[N]` under `BEHAVIOR_LOG_PROBS`; empty where noise is added and
        clipped, which has no density, or an `act` of a user's own chooses.
    """
    policy = agent.policy
    if not type(agent).act.__module__.startswith("kerasrl.agents."):
        return {}
    if "epsilon" in inputs:
        found = _epsilon_greedy(policy, inputs, outputs, actions)
    elif "scale" in inputs:
        return {}
    elif "random" in inputs:
        found = _soft(policy, inputs, outputs, actions)
    else:
        found = policy.distribution(outputs).log_prob(actions)
    return {BEHAVIOR_LOG_PROBS: ops.cast(found, "float32")}


def _epsilon_greedy(policy, inputs, outputs, actions):
    q_values, epsilon = outputs["q_values"], inputs["epsilon"]
    numbers = ops.cast(policy.combinations.number(actions), "int32")
    is_best = ops.equal(numbers, ops.cast(ops.argmax(q_values, axis=-1), "int32"))
    legal = policy.legal_actions(inputs["observations"])
    count = float(q_values.shape[-1])
    if legal is not None:
        count = ops.sum(ops.cast(legal, "float32"), axis=-1)
    share = epsilon / count
    return ops.log(ops.where(is_best, 1.0 - epsilon + share, share))


def _soft(policy, inputs, outputs, actions):
    random = inputs["random"]
    if policy.is_discrete:
        logits = outputs["distribution"] * (1.0 - random[:, None])
        drawn = policy.distribution(policy.masked({"distribution": logits}, inputs))
        return drawn.log_prob(policy.combinations.number(actions))
    # Densities are in the units of the action space.
    radius = policy.action_radius
    sizes = radius[radius > 0].astype("float32")
    volume = ops.sum(ops.log(ops.convert_to_tensor(sizes)))
    uniform = -volume - len(sizes) * ops.log(2.0)
    unit = policy.normalize_actions(actions)
    found = policy.distribution(outputs).log_prob(unit) - volume
    return ops.where(random > 0.0, uniform, found)


def ask(agent, wanted):
    """Has acting record log-probabilities from here on, or not.

    Args:
        agent: An `Agent` that is not acting now.
        wanted: Bool.
    """
    if agent.records_log_probs != wanted:
        agent.records_log_probs = wanted
        agent._actors.pop("stochastic", None)


def recorder(agent, envs, output, deterministic=False, quotas=None):
    """Returns what writes the rollouts of environments into a directory.

    Args:
        agent: An `Agent` that was built for them.
        envs: `kerasrl.envs.Environments`.
        output: Path of the directory.
        deterministic: Whether actions are not drawn.
        quotas: As for `kerasrl.offline.recording.Recorder`.

    Returns:
        A `kerasrl.offline.recording.Recorder`.

    Raises:
        ValueError: The directory has episodes of other spaces.
    """
    spaces = envs.observation_space, envs.action_space
    metadata = {"env": envs.name, "algorithm": type(agent).__name__}
    return Recorder(
        offline.Writer(output, *spaces, metadata=metadata),
        RolloutEpisodes(*spaces, is_certain=deterministic),
        agent.needs_all_finals,
        quotas,
    )
