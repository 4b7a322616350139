"""Agent classes made of functions, without a class statement."""

from kerasrl.agents.on_policy import OnPolicyAgent
from kerasrl.training.parts import Replaceable


def build_agent_class(name, *, loss, base=OnPolicyAgent, **updates):
    """Makes an algorithm of functions.

    Everything but the loss has a default in the base class. See
    `kerasrl.Agent.with_updates`, which makes one of an algorithm that there is.

    Args:
        name: Name of the class, such as `"Reinforce"`.
        loss: Function `loss(agent, batch, outputs, settings)` that returns a scalar
            and a dict of scalars to log.
        base: `kerasrl.OnPolicyAgent`, whose batch is a rollout with what `targets`
            adds, or `kerasrl.OffPolicyAgent`, whose batches are samples from replay.
        **updates: As for `kerasrl.Agent.with_updates`.

    Returns:
        A subclass of `base`, registered with Keras as `"agents>name"`.

    Raises:
        TypeError: `base` is no class of agents, or an argument does not fit.

    Example:

    ```python
    def loss(agent, batch, outputs, settings):
        log_probs = agent.policy.distribution(outputs).log_prob(batch["actions"])
        return kerasrl.losses.policy_gradient(
            log_probs, batch["returns"], batch["mask"]
        )

    Reinforce = kerasrl.build_agent_class(
        "Reinforce", loss=loss, defaults={"rollout_length": 64}
    )
    Reinforce().fit("CartPole-v1", steps=10_000)
    ```
    """
    if not (isinstance(base, type) and issubclass(base, Replaceable)):
        raise TypeError(
            f"Received base={base!r}. Expected kerasrl.OnPolicyAgent, "
            "kerasrl.OffPolicyAgent or a subclass of one."
        )
    return base.with_updates(name, loss=loss, **updates)
