"""Worlds, rollouts and buffers for the tests of replay."""

import numpy as np
import optree
from gymnasium import spaces
from replay_reference import World, number_observer

from kerasrl.replay import PrioritizedReplayBuffer, ReplayBuffer
from kerasrl.rollouts import Rollout

NUMBERS = spaces.Box(-np.inf, np.inf, (2,))
ACTIONS = spaces.Discrete(10**9)
KINDS = [ReplayBuffer, PrioritizedReplayBuffer]
EXTRAS = {"number": np.int32(0), "more": {"half": np.zeros(2, np.float32)}}
#: To keep all that a world says besides.
MORE = {
    "previous_inputs": ["previous_rewards", "previous_actions"],
    "extras_example": EXTRAS,
    "keep_infos": True,
}
_ONLY_MORE = ("previous_", "next_previous_", "infos")


def make_world(rng, num_envs, **kwargs):
    observers = [number_observer(env) for env in range(num_envs)]
    return World(rng, num_envs, observers, **kwargs)


def assert_agrees(batch, first, expected):
    """Compares the first sample of each action, in the order of actions."""
    actions = np.unique(batch["actions"])
    names = list(expected[actions[0]])
    if "previous_actions" not in batch:
        assert batch["extras"] == batch["infos"] == {}
        names = [name for name in names if not name.startswith(_ONLY_MORE)]
    else:
        numbers = batch["extras"]["number"]
        np.testing.assert_array_equal(numbers, batch["actions"])
        halves = batch["extras"]["more"]["half"][:, 0]
        np.testing.assert_array_equal(halves, batch["actions"] / 2)
        # A text is no number.
        batch = {**batch, "infos": batch["infos"]["said"]}
        assert numbers.dtype == np.int32 and batch["infos"].dtype == np.float32
    for name in names:
        np.testing.assert_allclose(
            batch[name][first],
            [expected[action][name] for action in actions],
            rtol=1e-5,
            atol=1e-6,
            err_msg=name,
        )


def one_env_rollout(rewards, terminated=(), truncated=(), first=0):
    """Steps of one environment whose observations are running numbers."""
    length = len(rewards)
    flags = {name: np.zeros((length, 1), bool) for name in ("terminated", "truncated")}
    flags["terminated"][list(terminated)] = True
    flags["truncated"][list(truncated)] = True
    ended = flags["terminated"] | flags["truncated"]
    starts = np.concatenate([[[first == 0]], ended[:-1]])
    numbers = np.arange(first, first + length + 1, dtype=np.float32)[:, None, None]
    final = None
    if ended.any():
        time = np.flatnonzero(ended)
        # Half a number beyond: nothing else looks like a final observation.
        final = {"time": time, "env": 0 * time, "observations": numbers[time, 0] + 0.5}
    return Rollout(
        observations=numbers[:-1],
        actions=np.zeros((length, 1), np.int64),
        rewards=np.asarray(rewards, np.float32)[:, None],
        valid=np.ones((length, 1), bool),
        episode_starts=starts,
        previous_actions=np.zeros((length, 1), np.int64),
        previous_rewards=np.zeros((length, 1), np.float32),
        next_inputs={"observations": numbers[-1]},
        final=final,
        **flags,
    )


def number_buffer(capacity, kind=ReplayBuffer, **kwargs):
    box = spaces.Box(-np.inf, np.inf, (1,))
    return kind(capacity, box, spaces.Discrete(2), **kwargs)


def every_sample(buffer, rng=None):
    """Each transition once, in the order of observations (of `one_env_rollout`)."""
    rng = rng or np.random.default_rng(0)
    batch = buffer.sample(40 * len(buffer) + 100, rng=rng)
    _, first = np.unique(batch["observations"].reshape(-1), return_index=True)
    assert len(first) == len(buffer)
    return optree.tree_map(lambda leaf: leaf[first], batch)
