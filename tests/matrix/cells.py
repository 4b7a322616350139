"""What every algorithm is tried with: features, their combinations, one trial of each.

A trial trains a small agent with one value of every feature, in an environment or, if
its algorithm learns from data, on episodes of one, saves it, goes on with both, and
compares their weights bit by bit. `make matrix` makes as many as it takes for
every two features to meet, and writes what came of it; see `report.py`.
"""

import functools
import itertools
import tempfile

import gymnasium
import keras
import numpy as np
import tensorflow as tf
from gymnasium import spaces

import kerasrl
from kerasrl import distributions, models

FEATURES = {
    "actions": ("Discrete", "MultiDiscrete", "MultiBinary", "Box", "Dict"),
    "observations": ("flat", "image", "nested"),
    "masks": ("all legal", "mask"),
    "memory": ("no memory", "LSTM", "GRU"),
    "distribution": ("stock distribution", "custom distribution"),
    "loss": ("stock loss", "custom_loss"),
    "engine": ("one process", "workers", "MirroredStrategy"),
}
#: What stands for a feature that is not asked for: no column of its own.
PLAIN = {"all legal", "no memory", "stock distribution", "stock loss", "one process"}

_NUMBERS = spaces.Box(np.float32([-2.0, 0.0]), np.float32([1.0, 5.0]))
ACTIONS = {
    "Discrete": spaces.Discrete(4, start=2),
    "MultiDiscrete": spaces.MultiDiscrete([3, 2], start=[1, 0]),
    "MultiBinary": spaces.MultiBinary(3),
    "Box": _NUMBERS,
    "Dict": spaces.Dict(
        {
            "move": _NUMBERS,
            "rest": spaces.Tuple([spaces.Discrete(3, start=2), spaces.MultiBinary(2)]),
        }
    ),
}
OBSERVATIONS = {
    "flat": spaces.Box(-1.0, 1.0, (3,), np.float32),
    "image": spaces.Box(0, 255, (8, 8, 1), np.uint8),
    "nested": spaces.Dict(
        {
            "image": spaces.Box(0, 255, (8, 8, 1), np.uint8),
            "rest": spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))]),
        }
    ),
}
_REPLAY = {"learning_starts": 8, "batch_size": 4, "buffer_size": 200}
_OF_DATA = {"batch_size": 4, "updates_per_call": 4}
_SEQUENCES = {"burn_in": 1, "sequence_length": 4, "period": 2, "train_every": 4}
AGENTS = {
    "PG": lambda **kw: kerasrl.PG(rollout_length=8, **kw),
    "A2C": lambda **kw: kerasrl.A2C(**kw),
    "PPO": lambda **kw: kerasrl.PPO(
        rollout_length=8, num_epochs=1, minibatch_size=16, **kw
    ),
    "A3C": lambda **kw: kerasrl.A3C(rollout_length=8, synchronous=True, **kw),
    "IMPALA": lambda **kw: kerasrl.IMPALA(
        rollout_length=8, replay_proportion=0.5, synchronous=True, **kw
    ),
    "APPO": lambda **kw: kerasrl.APPO(
        rollout_length=8,
        num_epochs=1,
        minibatch_size=16,
        target_network=True,
        synchronous=True,
        **kw,
    ),
    "SimpleQ": lambda **kw: kerasrl.SimpleQ(**_REPLAY, **kw),
    "DQN": lambda **kw: kerasrl.DQN(**_REPLAY, **kw),
    "R2D2": lambda **kw: kerasrl.R2D2(**_REPLAY, **_SEQUENCES, **kw),
    "DDPG": lambda **kw: kerasrl.DDPG(**_REPLAY, **kw),
    "TD3": lambda **kw: kerasrl.TD3(**_REPLAY, **kw),
    "SAC": lambda **kw: kerasrl.SAC(**_REPLAY, **kw),
    "BC": lambda **kw: kerasrl.BC(sequence_length=2, **_OF_DATA, **kw),
    "MARWIL": lambda **kw: kerasrl.MARWIL(**_OF_DATA, **kw),
    "TD3BC": lambda **kw: kerasrl.TD3BC(**_OF_DATA, **kw),
    "IQL": lambda **kw: kerasrl.IQL(**_OF_DATA, **kw),
    "CQL": lambda **kw: kerasrl.CQL(num_actions=2, **_OF_DATA, **kw),
}
ON_POLICY = ("PG", "A2C", "PPO", "A3C", "IMPALA", "APPO")
BY_VALUE = ("SimpleQ", "DQN", "R2D2")
BY_SLOPE = ("DDPG", "TD3", "TD3BC")
WITH_CRITICS = ("SAC", "IQL", "CQL")
FROM_DATA = ("BC", "MARWIL", "TD3BC", "IQL", "CQL")
EVERY = tuple(AGENTS)

#: What does not go together: algorithms, features, why, and whether it would mean
#: something if it did.
EXCEPTIONS = [
    (BY_VALUE, {"Box"}, "values every action, and numbers are endless", False),
    (BY_VALUE, {"Dict"}, "values every action, and numbers are endless", False),
    *(
        (BY_SLOPE, {kind}, "follows the slope of a value along an action", False)
        for kind in ("Discrete", "MultiDiscrete", "MultiBinary", "Dict")
    ),
    (WITH_CRITICS, {"Dict"}, "critics take numbers, or value every choice", True),
    (EVERY, {"mask", "Box"}, "numbers are not chosen among", False),
    (EVERY, {"mask", "MultiBinary"}, "give a MultiDiscrete of twos", True),
    (EVERY, {"mask", "Dict"}, "masks of parts are not told", True),
    (("SimpleQ", "DQN"), {"LSTM"}, "R2D2 is DQN with a memory", False),
    (("SimpleQ", "DQN"), {"GRU"}, "R2D2 is DQN with a memory", False),
    (("R2D2",), {"no memory"}, "DQN is R2D2 without", False),
    (
        (*BY_VALUE, *BY_SLOPE),
        {"custom distribution"},
        "has no distribution of actions",
        False,
    ),
    (WITH_CRITICS, {"custom distribution"}, "needs a bounded one with a slope", True),
    *(
        (FROM_DATA[1:], {kind}, "of memory, BC learns from data", True)
        for kind in ("LSTM", "GRU")
    ),
    (FROM_DATA, {"workers"}, "learns from data, where nothing acts", False),
]


def exception(algorithm, features):
    """The first of `EXCEPTIONS` that applies to a set of features, or None."""
    for algorithms, together, reason, meaningful in EXCEPTIONS:
        if algorithm in algorithms and together <= set(features):
            return reason, meaningful
    return None


@functools.cache
def rows(algorithm):
    """All rows of features that go together."""
    return [
        features
        for features in itertools.product(*FEATURES.values())
        if exception(algorithm, features) is None
    ]


@functools.cache
def meeting(algorithm):
    """Sets of one or two features that meet in one of those rows."""
    return {
        frozenset(pair)
        for features in rows(algorithm)
        for pair in itertools.combinations_with_replacement(features, 2)
    }


def exception_of_pair(algorithm, first, second):
    """Why two features do not go together, as from `exception`; None if they do."""
    if frozenset({first, second}) in meeting(algorithm):
        return None
    # Whatever else there is with them; best, nothing.
    found = exception(algorithm, {first, second})
    for features in itertools.product(*FEATURES.values()):
        if found is None and {first, second} <= {*features}:
            found = exception(algorithm, features)
    return found


def covering(algorithm):
    """Trials, tuples of features, in which every two that go together meet."""
    every = rows(algorithm)
    missing = {
        pair for features in every for pair in itertools.combinations(features, 2)
    }
    chosen = []
    while missing:
        best = max(
            every,
            key=lambda features: sum(
                pair in missing for pair in itertools.combinations(features, 2)
            ),
        )
        chosen.append(best)
        missing -= set(itertools.combinations(best, 2))
    return chosen


class AnySpaces(gymnasium.Env):
    """Random observations; ends in both ways; refuses actions that are not legal."""

    def __init__(self, actions="Discrete", observations="flat", masked=False):
        self.action_space = ACTIONS[actions]
        self.seen = OBSERVATIONS[observations]
        self.observation_space, self.masked = self.seen, masked
        self.is_checked = False
        if masked:
            counts = np.ravel(getattr(self.action_space, "nvec", 4))
            self.counts = [int(count) for count in counts]
            # Of others nobody can say which are legal, and agents refuse their masks.
            self.is_checked = hasattr(self.action_space, "start")
            mask = spaces.MultiBinary(sum(self.counts))
            items = {"observation": self.seen}
            if isinstance(self.seen, spaces.Dict):
                items = dict(self.seen.spaces)
            self.observation_space = spaces.Dict({**items, "action_mask": mask})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.seen.seed(seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        if self.is_checked:
            choices = np.ravel(action) - np.ravel(self.action_space.start)
            offsets = np.cumsum([0, *self.counts[:-1]])
            if not self.mask[offsets + choices].all():
                raise ValueError(f"{action!r} is not legal")
        self.steps += 1
        terminated, truncated = self.steps == 3, self.steps > 3
        reward = float(self.np_random.normal())
        return self._observe(), reward, terminated, truncated, {}

    def _observe(self):
        observation = self.seen.sample()
        if not self.masked:
            return observation
        self.mask = self.np_random.integers(2, size=sum(self.counts)).astype(np.int8)
        offsets = np.cumsum([0, *self.counts[:-1]])
        self.mask[offsets + self.np_random.integers(self.counts)] = 1
        if not isinstance(observation, dict):
            observation = {"observation": observation}
        return {**observation, "action_mask": self.mask.copy()}


def _own(base):
    """A distribution of one's own: that of the kind, with other entropies."""

    @keras.saving.register_keras_serializable("matrix", f"Own{base.__name__}")
    class Own(base):
        def entropy(self):
            return 0.5 * super().entropy()

    return Own


_DISTRIBUTIONS = {
    "Discrete": _own(distributions.Categorical),
    "MultiDiscrete": _own(distributions.MultiCategorical),
    "MultiBinary": _own(distributions.Bernoulli),
    "Box": _own(distributions.DiagonalGaussian),
}
_DISTRIBUTIONS["Dict"] = {"move": _DISTRIBUTIONS["Box"]}


def _with_loss(base):
    """A network with a loss of its own beside that of the algorithm."""

    @keras.saving.register_keras_serializable("matrix", f"Own{base.__name__}")
    class Own(base):
        def custom_loss(self, loss, batch):
            squares = [keras.ops.sum(w**2) for w in self.trainable_variables]
            return loss + 1e-3 * sum(squares)

    return Own


NETWORKS = {
    **dict.fromkeys(ON_POLICY, models.ActorCritic),
    **dict.fromkeys(BY_VALUE, models.QNetwork),
    **dict.fromkeys(BY_SLOPE, models.DeterministicActorCritic),
    "SAC": models.SoftActorCritic,
    "BC": models.ActorCritic,
    "MARWIL": models.ActorCritic,
    "IQL": models.ImplicitActorCritic,
    "CQL": models.SoftActorCritic,
}
_OWN_NETWORKS = {base: _with_loss(base) for base in set(NETWORKS.values())}


def make_agent(algorithm, features):
    """An agent with a small network."""
    actions, observations, _, memory, distribution, loss, _ = features
    arguments = {"hidden_units": (8,)}
    if observations != "flat":
        arguments["filters"] = [(4, 3, 2)]
    if memory != "no memory":
        arguments.update(cell=memory.lower(), cell_units=4)
    if distribution == "custom distribution":
        arguments["distribution"] = _DISTRIBUTIONS[actions]
    network = NETWORKS[algorithm]
    if loss == "custom_loss":
        network = _OWN_NETWORKS[network]
    more = {}
    if memory != "no memory" and algorithm in ("DDPG", "TD3", "SAC"):
        more = {"burn_in": 1, "sequence_length": 2, "period": 2}
    agent = AGENTS[algorithm](policy=network(**arguments), seed=0, **more)
    agent.compile(jit_compile=False)
    return agent


def _environments(features):
    actions, observations, masks, *_ = features
    return lambda: AnySpaces(actions, observations, masks == "mask")


def _source(algorithm, features):
    """What `fit` learns from."""
    if algorithm in FROM_DATA:
        return _episodes(*features[:3])
    return _environments(features)


@functools.cache
def _episodes(actions, observations, masks):
    """Episodes of random actions, legal ones, as a data set in memory."""
    env = AnySpaces(actions, observations, masks == "mask")
    env.action_space.seed(0)
    generator = np.random.default_rng(0)

    def choose():
        if not env.is_checked:
            return env.action_space.sample()
        parts = np.split(env.mask, np.cumsum(env.counts)[:-1])
        chosen = [generator.choice(np.flatnonzero(part)) for part in parts]
        chosen = np.reshape(chosen, env.action_space.shape) + env.action_space.start
        return env.action_space.dtype.type(chosen)

    with tempfile.TemporaryDirectory() as folder:
        recorded = kerasrl.offline.RecordEpisodes(env, folder)
        for number in range(10):
            recorded.reset(seed=number)
            ended = False
            while not ended:
                *_, terminated, truncated, _ = recorded.step(choose())
                ended = terminated or truncated
        recorded.close()
        data = kerasrl.offline.load(folder)
        return kerasrl.offline.from_episodes(
            list(data.episodes), data.observation_space, data.action_space
        )


@functools.cache
def _mirrored():
    # Of two such strategies in one process, TensorFlow confuses the collectives.
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def try_out(algorithm, features):
    """Trains, saves, loads, trains both; they have to end with the same weights.

    Args:
        algorithm: Name of an agent.
        features: One of each entry of `FEATURES`.

    Raises:
        Exception: Something does not work.
    """
    engine = features[-1]
    scope = tf.distribute.get_strategy().scope
    if engine == "MirroredStrategy":
        scope = _mirrored().scope
    settings = {"steps": 48, "num_envs": 2, "verbose": 0}
    if algorithm in FROM_DATA:
        settings = {"steps": 8, "verbose": 0}
    if engine == "workers":
        settings["num_workers"] = 2
    make = _source(algorithm, features)
    with scope():
        agent = make_agent(algorithm, features)
        history = agent.fit(make, **settings).history
        if not np.isfinite(history["loss"]).all() or not history["gradient_norm"][-1]:
            raise AssertionError(f"It did not learn: {history}")
        with tempfile.TemporaryDirectory() as folder:
            path = agent.save(f"{folder}/agent.kerasrl")
            resumed = kerasrl.load(path)
        for each in (agent, resumed):
            each.fit(make, **settings)
        for first, second in zip(_weights(agent), _weights(resumed), strict=True):
            np.testing.assert_array_equal(first, second)


def _weights(agent):
    every = [*agent.policy.variables, *agent.own_variables]
    return [keras.ops.convert_to_numpy(variable) for variable in every]


def refuse(algorithm, features):
    """Makes sure that what does not go together is a clear error.

    Raises:
        AssertionError: It is none.
    """
    engine = features[-1]
    try:
        agent = make_agent(algorithm, features)
        more = {} if algorithm in FROM_DATA and engine != "workers" else {"num_envs": 2}
        agent.fit(_source(algorithm, features), steps=16, verbose=0, **more)
    except (TypeError, ValueError) as error:
        if len(str(error)) < 40:
            raise AssertionError(f"unclear: {error}") from error
        return
    raise AssertionError("trained")
