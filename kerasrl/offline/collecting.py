"""Episodes of whatever acts, and of loops of one's own."""

import gymnasium
import numpy as np
import optree

from kerasrl import spaces
from kerasrl.envs import make_envs
from kerasrl.offline.episodes import Episode, tree_of
from kerasrl.offline.loading import load
from kerasrl.offline.recording import Recorder, RolloutEpisodes
from kerasrl.offline.writer import Writer
from kerasrl.rollouts.evaluation import play, spread
from kerasrl.rollouts.scripted import FunctionPolicy


def collect(
    policy, env, output, episodes=10, seed=None, num_envs=None, env_config=None
):
    """Plays whole episodes of whatever acts, and writes them.

    Args:
        policy: A `kerasrl.Agent`, which explores as in training, a
            `kerasrl.ScriptedPolicy`, or a function of observations `[N, ...]` that
            returns actions `[N, ...]`.
        env, num_envs, env_config: As for `kerasrl.Agent.fit`.
        output: Path of the directory.
        episodes: Integer, shared out evenly over the environments.
        seed: Integer or `None`, of environments and actions.

    Returns:
        A `kerasrl.offline.Dataset` of all that is in the directory now.

    Example:

    ```python
    def lean(observations):
        return (observations[:, 2] > 0).astype(int)

    dataset = kerasrl.offline.collect(lean, "CartPole-v1", "data/lean", episodes=20)
    ```
    """
    arguments = {"episodes": episodes, "seed": seed, "env_config": env_config}
    if hasattr(policy, "records_log_probs"):
        policy.evaluate(
            env, deterministic=False, num_envs=num_envs, output=output, verbose=0,
            **arguments,
        )  # fmt: skip
        return load(output)
    if not hasattr(policy, "compute_actions"):
        policy = FunctionPolicy(policy)
    envs = make_envs(env, num_envs or min(episodes, 8), env_config)
    try:
        own_spaces = envs.observation_space, envs.action_space
        metadata = {"env": envs.name, "algorithm": type(policy).__name__}
        recorder = Recorder(
            Writer(output, *own_spaces, metadata=metadata),
            RolloutEpisodes(*own_spaces),
            all_finals=True,
            quotas=spread(episodes, envs.num_envs),
        )
        collector = policy.make_collector(envs, 64, seed, all_finals=True)
        play(collector, episodes, record=recorder)
        recorder.close()
    finally:
        envs.close()
    return load(output)


class RecordEpisodes(gymnasium.Wrapper):
    """Writes the episodes of an environment, by whatever loop it is stepped.

    Args:
        env: `gymnasium.Env`.
        output: Path of the directory.
        metadata: Dict, JSON-compatible, what is known of who acts.

    Example:

    ```python
    env = RecordEpisodes(gymnasium.make("CartPole-v1"), "data/loop")
    observation, info = env.reset(seed=0)
    for _ in range(1000):
        action = env.action_space.sample()
        env.note(log_probs=-0.6931)  # What else is known of the step to come.
        observation, reward, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            observation, info = env.reset()
    env.close()
    ```
    """

    def __init__(self, env, output, metadata=None):
        super().__init__(env)
        name = None if env.spec is None else env.spec.id
        own_spaces = env.observation_space, env.action_space
        self.writer = Writer(
            output, *own_spaces, metadata={"env": name, **(metadata or {})}
        )
        self._listers = [spaces.leaf_lister(space) for space in own_spaces]
        self._own_spaces = own_spaces
        self._noted: dict = {}
        self._begin(None)

    def note(self, **extras):
        """Notes trees of numbers, extras of the step that comes next."""
        self._noted.update(optree.tree_map(np.asarray, extras))

    def reset(self, **arguments):
        """Resets the environment; an episode that runs is written as unfinished."""
        self._write(False, False)
        observation, info = self.env.reset(**arguments)
        self._begin(observation)
        return observation, info

    def step(self, action):
        """Steps the environment; at the end of an episode, writes it."""
        taken = self._leaves(1, action)  # Before the environment may change it.
        result = self.env.step(action)
        observation, reward, terminated, truncated, _ = result
        self._observations.append(self._leaves(0, observation))
        self._actions.append(taken)
        self._rewards.append(float(reward))
        self._extras.append(self._noted)
        self._noted = {}
        if terminated or truncated:
            self._write(bool(terminated), bool(truncated))
            self._begin(None)
        return result

    def close(self):
        """Writes what there is, also an episode that runs, and closes."""
        self._write(False, False)
        self._begin(None)
        self.writer.close()
        super().close()

    def _leaves(self, index, tree):
        # Copies: environments may go on to write into theirs.
        return [np.array(leaf) for leaf in self._listers[index](tree)]

    def _begin(self, observation):
        seen = [] if observation is None else [self._leaves(0, observation)]
        self._observations: list = seen
        self._actions: list = []
        self._rewards: list = []
        self._extras: list = []

    def _write(self, terminated, truncated):
        if not self._rewards:
            return
        columns = [
            [np.stack(leaf) for leaf in zip(*rows, strict=True)]
            for rows in (self._observations, self._actions)
        ]
        names = {frozenset(extras) for extras in self._extras}
        if len(names) > 1:
            raise ValueError(
                f"Received notes named {sorted(map(sorted, names))} in one episode. "
                "Expected the same of each step."
            )
        extras = optree.tree_map(lambda *leaves: np.stack(leaves), *self._extras)
        self.writer.add(
            Episode(
                tree_of(self._own_spaces[0], columns[0]),
                tree_of(self._own_spaces[1], columns[1]),
                np.array(self._rewards),
                terminated,
                truncated,
                extras,
            )
        )
