"""How off-policy agents try what they would not do."""

from functools import partial

import keras
import numpy as np
from keras import ops

from kerasrl import checks, losses
from kerasrl.models import NoiseScope
from kerasrl.models.masking import random_legal
from kerasrl.training import acting, schedules
from kerasrl.training.hyperparameters import Hyperparameter

NOISES = ("gaussian", "ornstein_uhlenbeck")
#: The arguments of agents that `act_with_noise`.
NOISE_KINDS = {
    "noise": Hyperparameter(partial(checks.choice, choices=NOISES), "act"),
    "noise_scale": Hyperparameter(schedules.rates, "now"),
}


def epsilon_greedy(q_values, epsilon, seed=None, legal=None):
    """Chooses the best action, or with probability epsilon any.

    Args:
        q_values: float32 `[N, A]`.
        epsilon: float32 `[N]`, probability of a uniformly random action.
        seed: As for `keras.random.uniform`.
        legal: bool `[N, A]`, which actions may be taken; `None` if all. Values of the
            others are taken to be low enough.

    Returns:
        int32 `[N]`.

    Example:

    ```python
    epsilon_greedy(np.array([[0.0, 1.0]], "float32"), np.zeros(1, "float32"))  # [1]
    ```
    """
    num_actions = q_values.shape[-1]
    draws = keras.random.uniform((ops.shape(q_values)[0], 2), seed=seed)
    if legal is not None:
        choices = random_legal(draws[:, 1], legal)
    else:
        # Drawn below 1, but the product may round up to `num_actions`.
        choices = ops.minimum(ops.floor(draws[:, 1] * num_actions), num_actions - 1)
    greedy = ops.cast(ops.argmax(q_values, axis=-1), "int32")
    return ops.where(draws[:, 0] < epsilon, ops.cast(choices, "int32"), greedy)


def act_epsilon_greedy(agent, inputs, deterministic, with_values=False):
    """Acts by a `kerasrl.models.QFunction`, at times randomly unless told otherwise.

    Args:
        agent: An agent with such a policy.
        inputs: Dict as for the policy's `call`, with `"state"`, and for stochastic
            acting what `epsilon_inputs` returned.
        deterministic: Whether neither random actions nor noisy layers explore.
        with_values: Whether stochastic acting records what it thinks of actions.

    Returns:
        Dict of `"actions"`, int32 `[N, ...]`, and the new `"state"`; with values also
        `"taken_values"` `[N, 1]`, of the actions taken, and `"best_values"` `[N]`.
    """
    with NoiseScope(enabled=not deterministic):
        outputs = acting.call_policy(agent.policy, inputs)
    if deterministic:
        actions = agent.policy.mode(outputs)
    else:
        legal = agent.policy.legal_actions(inputs["observations"])
        numbers = epsilon_greedy(outputs["q_values"], inputs["epsilon"], legal=legal)
        actions = agent.policy.combinations.actions(numbers)
    acted = {"actions": actions, "state": outputs.get("state", ())}
    if with_values and not deterministic:
        q_values = ops.cast(outputs["q_values"], "float32")
        acted["taken_values"] = losses.select_actions(q_values, numbers)[:, None]
        acted["best_values"] = ops.max(q_values, axis=-1)
    return acted


def act_stochastically(agent, inputs, deterministic):
    """Acts by the distribution of a policy with critics, at first at random.

    Args:
        agent: An agent with a `kerasrl.models.ActionValuePolicy` that has one.
        inputs: Dict as for the policy's `call`, and for stochastic acting `"random"`,
            float32 `[N]`, 1 where actions are drawn uniformly.
        deterministic: Whether to take the mode.

    Returns:
        Dict of `"actions"` in the units of the action space, and `"state"`.
    """
    policy = agent.policy
    outputs = acting.call_policy(policy, inputs)
    distribution = policy.distribution(outputs)
    state = outputs.get("state", ())
    if policy.is_discrete:
        if deterministic:
            numbers = distribution.mode()
            return {"actions": policy.combinations.actions(numbers), "state": state}
        # Equal logits where actions are to be random.
        logits = distribution.parameters * (1.0 - inputs["random"][:, None])
        outputs = policy.masked({"distribution": logits}, inputs)
        numbers = policy.distribution(outputs).sample()
        return {"actions": policy.combinations.actions(numbers), "state": state}
    acted = acting.choose(policy, inputs, outputs, distribution, deterministic)
    actions = acted["actions"]
    if not deterministic:
        actions = uniform_where(inputs["random"], actions)
    return {**acted, "actions": policy.scale_actions(actions)}


def epsilon_inputs(agent, num_envs):
    """Returns the present inputs of `act_epsilon_greedy`.

    Args:
        agent: An `OffPolicyAgent` with an `exploration`, as for `environment_rates`.
        num_envs: Integer `B`.

    Returns:
        Dict of `"epsilon"`, float32 `[B]`; 1 until learning starts.
    """
    epsilon = environment_rates(agent, "exploration", num_envs)
    if _acts_at_random(agent):
        epsilon = np.ones_like(epsilon)
    return {"epsilon": epsilon}


def environment_rates(agent, name, num_envs):
    """Returns how much environments explore now.

    Args:
        agent: An `OffPolicyAgent`.
        name: Name of its argument: as for `schedules.current_rates`, or `None` for
            `epsilon_ladder` over the environments of all ranks.
        num_envs: Integer `B`, those of this rank.

    Returns:
        float32 `[B]`.
    """
    if getattr(agent, name) is not None:
        return schedules.current_rates(agent, name, num_envs)
    replicas = agent.replicas
    ladder = np.array(epsilon_ladder(replicas.num_ranks * num_envs), np.float32)
    return np.split(ladder, replicas.num_ranks)[replicas.rank]


def epsilon_ladder(num_envs, base=0.4, exponent=7.0):
    """Returns one epsilon per environment, from greedy to curious.

    Environment `i` of `B` explores with `base ** (1 + exponent * i / (B - 1))`.

    Paper: Horgan et al. (2018), https://arxiv.org/abs/1803.00933.

    Args:
        num_envs: Integer `B`.
        base: Float in (0, 1), the largest epsilon.
        exponent: Float.

    Returns:
        List of floats.

    Example:

    ```python
    epsilon_ladder(8)  # [0.4, 0.16, 0.064, ..., 0.00065536]
    ```
    """
    places = np.arange(num_envs) / max(1, num_envs - 1)
    return [float(value) for value in base ** (1.0 + exponent * places)]


def act_with_noise(agent, inputs, deterministic, with_values=False):
    """Acts by a deterministic policy, with noise on top unless told otherwise.

    Args:
        agent: An agent with a `noise` of `NOISES`, and a policy of bounded actions.
        inputs: Dict as for the policy's `call`, and for stochastic acting `"scale"`,
            float32 `[N]`, the standard deviation of the noise on actions in [-1, 1],
            and `"random"`, float32 `[N]`, 1 where actions are drawn uniformly.
        deterministic: Whether there is no noise.
        with_values: Whether stochastic acting records what the critics, of a policy
            without memory, think of actions.

    Returns:
        Dict of `"actions"` in the units of the action space, and `"state"`, the noise
        to go on from if it is an Ornstein-Uhlenbeck process; with values also
        `"taken_values"` `[N, C]`, of the actions taken by each of C critics, and
        `"best_values"` `[N]`, the least of those without noise.
    """
    policy, state = agent.policy, inputs["state"]
    if policy.is_recurrent:
        outputs = acting.call_policy(policy, inputs)
        state = outputs["state"]
    else:
        outputs = acting.call_policy(policy, {**inputs, "state": ()})
    actions = policy.mode(outputs)
    if deterministic:
        return {"actions": policy.scale_actions(actions), "state": state}
    normal = keras.random.normal(ops.shape(actions))
    noise = _expand(inputs["scale"], actions) * normal
    if agent.noise == "ornstein_uhlenbeck":
        noise = state = ornstein_uhlenbeck(state, noise)
    best = actions
    actions = ops.clip(actions + noise, -1.0, 1.0)
    actions = uniform_where(inputs["random"], actions)
    acted = {"actions": policy.scale_actions(actions), "state": state}
    if with_values:
        taken, of_best = (
            ops.cast(policy.q_values(inputs["observations"], each), "float32")
            for each in (actions, best)
        )
        acted["taken_values"] = ops.transpose(taken)
        acted["best_values"] = ops.min(of_best, axis=0)
    return acted


def noise_state(agent):
    """Returns the noise at the start of an episode, as `Agent.acting_state`.

    Args:
        agent: As for `act_with_noise`.
    """
    if agent.policy.is_recurrent and agent.noise != "gaussian":
        raise ValueError(
            f"Received noise={agent.noise!r} and a recurrent policy. Replay keeps the "
            "memory of a policy and not that of noise: use noise='gaussian'."
        )
    if agent.noise == "gaussian":
        return agent.policy.get_initial_state(1)
    return ops.zeros((1, *agent.policy.action_space.shape))


def noise_inputs(agent, num_envs):
    """Returns the present inputs of `act_with_noise`, as `Agent.exploration_inputs`.

    Args:
        agent: As for `act_with_noise`, with a `noise_scale` as for `environment_rates`.
        num_envs: Integer `B`.
    """
    return {
        "scale": environment_rates(agent, "noise_scale", num_envs),
        "random": random_until_learning(agent, num_envs),
    }


def ornstein_uhlenbeck(noise, drawn, theta=0.15):
    """Takes one step of noise that drifts back to zero.

    Paper: Lillicrap et al. (2015), https://arxiv.org/abs/1509.02971.

    Args:
        noise: float32 `[N, ...]`, the noise before; zeros at episode starts.
        drawn: float32 `[N, ...]`, white noise.
        theta: Float, share of the noise that is lost in a step.

    Returns:
        float32 `[N, ...]`, the new noise.

    Example:

    ```python
    ornstein_uhlenbeck(np.ones((1, 2)), np.zeros((1, 2)))  # [[0.85, 0.85]]
    ```
    """
    return (1.0 - theta) * noise + drawn


def uniform_where(random, actions):
    """Replaces actions by uniformly random ones.

    Args:
        random: float32 `[N]`, 1 where the action is to be random, else 0.
        actions: float32 `[N, ...]` in [-1, 1].

    Returns:
        float32 `[N, ...]`.
    """
    drawn = keras.random.uniform(ops.shape(actions), -1.0, 1.0)
    return ops.where(_expand(random, actions) > 0.0, drawn, actions)


def random_until_learning(agent, num_envs):
    """Returns the input `"random"` of acting: 1 until learning starts, then 0.

    Args:
        agent: An `OffPolicyAgent`.
        num_envs: Integer `B`.

    Returns:
        float32 `[B]`.
    """
    return np.full(num_envs, _acts_at_random(agent), np.float32)


def _acts_at_random(agent):
    # Not who has learnt, from a dataset.
    return agent.updates == 0 and agent.env_steps < agent.learning_starts


def _expand(values, like):
    return ops.reshape(values, (-1,) + (1,) * (len(like.shape) - 1))
