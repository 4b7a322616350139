"""What VDN and QMIX share: acting and learning as a team."""

from functools import partial

import keras
from keras import ops

from kerasrl import checks, losses, workers
from kerasrl.agents.exploration import epsilon_greedy
from kerasrl.multi_agent.team_env import TeamEnv, as_team
from kerasrl.optimizers import RMSprop
from kerasrl.training import acting, schedules
from kerasrl.training.hyperparameters import Hyperparameter
from kerasrl.training.trainer import Trainer

#: Arguments of teams.
KINDS = {
    "reward": Hyperparameter(partial(checks.choice, choices=("sum", "mean")), "fit"),
    "double": Hyperparameter(checks.flag),
    "exploration": Hyperparameter(schedules.probabilities, "now"),
}
#: Their default.
EXPLORATION = keras.optimizers.schedules.PolynomialDecay(1.0, 50_000, 0.05)


def default_optimizer(agent):
    """Makes the optimizer of the published experiments."""
    return RMSprop(5e-4, rho=0.99, epsilon=1e-5)


def make_environments(agent, env, making):
    """Makes environments of a team, as `Trainer.make_environments`."""
    return workers.make_environments(as_team(env, agent.reward), **making)


def evaluate(agent, env, *args, **kwargs):
    """Plays whole episodes of a team, as `Trainer.evaluate`."""
    is_instance = hasattr(env, "step") and not isinstance(env, type)
    if is_instance and env is agent.fitted_env:
        raise ValueError(
            "Received the very environment that fit is stepping. Evaluate on another: "
            "a name, a function that makes one, or a second instance."
        )
    return Trainer.evaluate(agent, as_team(env, agent.reward), *args, **kwargs)


def check_env(env, env_config=None):
    """Makes a team once; a bad choice is an error."""
    TeamEnv(env, **(env_config or {})).close()


def act(agent, inputs, deterministic):
    """Has each agent take its best action, or with probability epsilon any.

    Args:
        agent: An agent with a `TeamNetwork`.
        inputs, deterministic: As for `kerasrl.Agent.act`.

    Returns:
        Dict of `"actions"` and `"state"`.
    """
    policy = agent.policy
    outputs = acting.call_policy(policy, inputs)
    state = outputs["state"]
    if deterministic:
        return {"actions": policy.distribution(outputs).mode(), "state": state}
    count, size = policy.num_agents, policy.num_actions
    values = ops.reshape(outputs["distribution"], (-1, size))
    legal = policy.legal_actions(inputs["observations"])
    numbers = epsilon_greedy(
        values,
        ops.repeat(inputs["epsilon"], count),
        legal=ops.reshape(legal, (-1, size)),
    )
    return {"actions": ops.reshape(numbers, (-1, count)), "state": state}


def loss(agent, batch, outputs, settings):
    """Computes the loss of the values of a team on sequences.

    Args:
        agent: An agent with a `TeamNetwork`, `double` and `n_step`.
        batch: Dict of sequences `[N, L, ...]`, as `sequences.prepared` returns it.
        outputs: What the policy returned for it.
        settings: Dict of scheduled values; there are none.

    Returns:
        Tuple of the loss and a dict of what is logged.
    """
    policy = agent.policy
    state = batch["observations"]["state"]
    values = policy.by_agent(outputs["distribution"])
    target_values = policy.by_agent(batch["target_outputs"]["distribution"])
    selector = ops.stop_gradient(values) if agent.double else None
    best = losses.greedy_values(target_values, selector)
    with agent.target.scope():
        row_values = policy.mix(best, state)
    rows = {
        name: ops.swapaxes(batch[name], 0, 1)
        for name in ("rewards", "terminated", "truncated", "valid")
    }
    targets, usable = losses.transformed_n_step_targets(
        ops.swapaxes(row_values, 0, 1),
        **rows,
        gamma=agent.gamma,
        n=agent.n_step,
        epsilon=None,
    )
    taken = losses.select_actions(values, ops.cast(batch["actions"], "int32"))
    team = ops.swapaxes(policy.mix(taken, state), 0, 1)
    weights = ops.broadcast_to(batch["weights"], ops.shape(team))
    result, metrics = losses.td_loss(team, targets, weights, None, usable)
    errors = losses.td_errors(team, targets, usable)
    return result, {
        **metrics,
        "q_value": losses.mean_value(team, usable),
        "count": ops.sum(ops.cast(usable, "float32")),
        "td_errors": losses.sequence_priorities(errors, usable),
    }
