"""The policies of several agents: which may be, how they act, and as one model."""

import keras

from kerasrl import checks
from kerasrl.agents import Agent, OffPolicyAgent
from kerasrl.models.policy import Policy
from kerasrl.multi_agent import rules
from kerasrl.multi_agent.seats import refuse_spaces
from kerasrl.rollouts import ScriptedPolicy
from kerasrl.rollouts.scripted import ScriptedActor
from kerasrl.training import origins

#: Which rewards agents may learn from.
REWARDS = ("own", "sum", "mean")
#: What steps may be counted in.
COUNTS = ("env_steps", "agent_steps")


keras.saving.register_keras_serializable("kerasrl")(rules.RandomPolicy)
keras.saving.register_keras_serializable("kerasrl")(rules.either_side)


def check_member(name, member):
    """Raises a TypeError unless a policy can be one of several.

    Args:
        name: Its id.
        member: A `kerasrl.Agent` or a `kerasrl.ScriptedPolicy`.
    """
    if isinstance(member, ScriptedPolicy):
        return
    if not isinstance(member, Agent):
        raise TypeError(
            f"Received {name!r}: {member!r:.200}. Expected a kerasrl.Agent such as "
            "kerasrl.PPO(), or a kerasrl.ScriptedPolicy such as "
            "kerasrl.multi_agent.RandomPolicy()."
        )
    kind = type(member).__name__
    reason = None
    if not member.learns_from_rollouts:
        reason = "does not learn from what its agents do, step by step"
    elif member.asynchronous:
        reason = "learns from workers of its own, which act by other weights"
    elif member.overlap:
        reason = "acts while it learns (overlap=True), and others would wait"
    elif getattr(member, "hindsight", None) is not None:
        reason = "asks environments for rewards (hindsight), which are of many here"
    if reason is not None:
        raise TypeError(
            f"Received {name!r}: a {kind}, which {reason}. Expected one that learns "
            "from its own trajectories, such as PPO, A2C, PG, DQN, R2D2, SAC, TD3 or "
            "DDPG with their defaults."
        )


def check_members(name, members):
    """Returns the policies of a `MultiAgent`, or raises."""
    if not isinstance(members, dict) or not members:
        raise TypeError(
            f"Received agents={members!r:.200}. Expected a dict from ids of policies "
            'to agents, such as {"main": kerasrl.PPO()}.'
        )
    for each, member in members.items():
        if not isinstance(each, str) or not each or each.startswith("/"):
            raise TypeError(
                f"Received {each!r} as the id of a policy. Expected a text that does "
                "not begin with a slash."
            )
        check_member(each, member)
    if len({id(member) for member in members.values()}) < len(members):
        raise ValueError(
            "Received one policy under two ids. Agents that share a policy are mapped "
            "to one id."
        )
    return dict(members)


def check_mapping(name, mapping):
    """Returns what agents are mapped by, or raises."""
    if mapping is None or callable(mapping):
        return mapping
    if isinstance(mapping, dict):
        return dict(mapping)
    raise TypeError(
        f"Received mapping={mapping!r:.200}. Expected None, a dict from agents to ids "
        "of policies, or a function of an agent's id and an episode."
    )


def check_train(name, train):
    """Returns which policies learn, or raises."""
    if train is None or callable(train):
        return train
    if isinstance(train, str):
        raise TypeError(f"Received train={train!r}. Expected a list: [{train!r}].")
    return list(checks.names(name, tuple(train)))


def is_replayed(member):
    """Whether an agent learns from replay, rather than once from what is fresh."""
    return isinstance(member, OffPolicyAgent)


def prepare(name, member, observation_space, action_space):
    """Builds a policy for the spaces of an agent that it is to act for.

    Raises:
        ValueError: It was made for others.
    """
    wanted = observation_space, action_space
    if isinstance(member, Agent):
        have = member.policy.observation_space, member.policy.action_space
    else:
        have = member.observation_space, member.action_space
    if have[0] is not None:
        refuse_spaces(name, wanted, have)
    if isinstance(member, Agent):
        member.build(*wanted)
    elif have[0] is None:
        member.setup(*wanted)
        member.observation_space, member.action_space = wanted


def start_learning(name, member):
    """Has a policy make ready to learn, when its first agent begins.

    Raises:
        ValueError: It has steps of several environments, from training alone.
    """
    if not is_replayed(member):
        member.start_learning(0)
        return
    buffer = member.buffer
    if buffer is not None and len(buffer) and buffer.num_envs != 1:
        raise ValueError(
            f"The replay buffer of the policy {name!r} was filled from "
            f"{buffer.num_envs} environments, when it learnt alone. As one of several "
            "it is filled by whole episodes of agents, one behind the other. Set "
            f"agents[{name!r}].buffer = None to start with an empty one."
        )
    member.start_learning(1)


def actor_of(member, generator, deterministic):
    """Returns what acts for a policy, as for `kerasrl.rollouts.Collector`."""
    if isinstance(member, Agent):
        actor = member.actor(deterministic)
        actor.refresh()
        return actor
    return ScriptedActor(member, generator)


def shift(member, checked):
    """Has observations shifted by the origin of a policy, if it has one."""
    if isinstance(member, Agent):
        origins.apply(member.policy, checked)


class Policies(keras.Model):
    """The networks of several policies as one model, for Keras's callbacks.

    Its `optimizer` is that of the first policy that learns.

    Args:
        members: Dict of agents and scripted policies.
    """

    observation_space = action_space = None

    def __init__(self, members):
        super().__init__(name="policies")
        self.networks = {
            name: member.policy
            for name, member in members.items()
            if isinstance(member, Agent) and isinstance(member.policy, Policy)
        }
        self.optimizer = None

    def set_weights(self, weights):
        super().set_weights(weights)
        self._tell_observers()

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
        self._tell_observers()

    def _tell_observers(self):
        """Has what follows the networks, such as targets, know of new weights."""
        for network in self.networks.values():
            for observer in list(network.observers):
                observer.weights_were_set()

    @property
    def metrics(self):
        """None: those of the policies are logged under their names."""
        return []

    def call(self, inputs):
        """Not defined: each policy is called by itself."""
        raise NotImplementedError("Call one of the networks of Policies.")
