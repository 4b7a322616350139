"""What plays by a rule, and who is mapped to what; neither Keras nor TensorFlow."""

import numpy as np

from kerasrl import action_masks, spaces
from kerasrl.rollouts import ScriptedPolicy


class RandomPolicy(ScriptedPolicy):
    """Takes any of the legal actions, each as often as the others.

    Boxes are drawn from within their bounds, where there are any; else from a normal
    distribution.

    Example:

    ```python
    agent = kerasrl.MultiAgent(
        {"main": kerasrl.PPO(), "random": kerasrl.multi_agent.RandomPolicy()},
        mapping={"x": "main", "o": "random"},
    )
    ```
    """

    def compute_actions(self, observations, state):
        counts = action_masks.counts_of_options(self.action_space)
        has_mask = action_masks.has_mask(self.observation_space, self.action_space)
        if has_mask:
            mask = np.asarray(observations[action_masks.KEY]) > 0
            return self._legal(mask, counts), state, {}
        leaves = spaces.leaves(self.observation_space)
        count = len(_first(observations)) if leaves else 1
        return spaces.samples(self.action_space, count, self.rng), state, {}

    def _legal(self, mask, counts):
        choices, start = [], 0
        for count in counts:
            part = mask[:, start : start + count]
            part = part | ~part.any(axis=1, keepdims=True)
            # The largest of random numbers is as likely to be any.
            choices.append(np.where(part, self.rng.random(part.shape), -1).argmax(1))
            start += count
        chosen = np.stack(choices, axis=1)
        chosen = chosen + np.ravel(getattr(self.action_space, "start", 0))
        return chosen.reshape(len(mask), *self.action_space.shape)

    def get_config(self):
        """Returns the constructor arguments: none."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Makes one of what `get_config` returned."""
        return cls(**config)


def _first(tree):
    while isinstance(tree, (dict, tuple)):
        tree = next(iter(tree.values() if isinstance(tree, dict) else tree))
    return tree


def either_side(agent, episode):
    """Maps one of two agents to `"main"`, the other to `"past"`, each as often.

    Args:
        agent: Id of an agent.
        episode: `MultiAgentEpisode`.

    Example:

    ```python
    kerasrl.MultiAgent({"main": main, "past": Opponents("main")}, either_side)
    ```
    """
    if not episode.policies:
        episode.user_data["first"] = episode.rng.random() < 0.5
    return "main" if episode.user_data["first"] != bool(episode.policies) else "past"


class Mapped:
    """Who acts for whom; can be sent to workers.

    Args:
        mapping: As for `kerasrl.MultiAgent`.
        ids: List of the ids of policies.
    """

    def __init__(self, mapping, ids):
        self.mapping = mapping
        self.ids = ids

    def __call__(self, agent, episode):
        """Returns the id of the policy of an agent in a `MultiAgentEpisode`."""
        mapping, ids = self.mapping, self.ids
        if callable(mapping):
            name = mapping(agent, episode)
        elif mapping is not None:
            name = mapping.get(agent, agent)
        else:
            name = ids[0] if len(ids) == 1 else agent
        check_id(name, ids, f" for the agent {agent!r}, by mapping={mapping!r}")
        return name


def check_id(name, ids, where=""):
    """Raises a ValueError unless there is a policy of that id."""
    if name not in ids:
        raise ValueError(
            f"Received the policy id {name!r}{where}. Expected one of {ids}."
        )
