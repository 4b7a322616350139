"""Environments and a policy for tests of worker processes, and how to begin."""

import dataclasses
import time

import gymnasium
import numpy as np
import optree
from gymnasium import spaces

from kerasrl.actors.noise import NoiseSpec
from kerasrl.actors.program import Program
from kerasrl.workers import make_collector, make_environments

LENGTHS = (3, 5, 4, 1, 2)

# A recurrent policy whose products and noise would show any difference in rows.
SOURCE = """
def program(inputs, weights, noise):
    observations, state = inputs["observations"]["vector"], inputs["state"]["memory"]
    hidden = np.tanh(np.matmul(observations + state, weights[0]))
    scores = np.matmul(hidden, weights[1]) + noise[0] + noise[1]
    scores = scores + inputs["previous_rewards"][:, None] + inputs["curiosity"][:, None]
    return {
        "actions": scores.argmax(axis=1).astype("int64"),
        "state": {"memory": hidden[:, :8] * np.float32(0.5)},
        "scores": scores,
        "nested": ({"flags": inputs["observations"]["flags"] + np.int8(0)},),
    }
"""


class Actor:
    """What collectors need of a `kerasrl.actors.Actor`, without TensorFlow."""

    backend = "numpy"

    def __init__(self):
        rng = np.random.default_rng(5)
        weights = [
            rng.standard_normal(shape).astype(np.float32)
            for shape in ((8, 64), (64, 3))
        ]
        specs = [
            NoiseSpec("normal", (3,), "float32"),
            NoiseSpec("normal", (1, 3), "float32", shared=True),
        ]
        self.program = Program(SOURCE, {"np": np}, weights, specs)
        self.initial_state = {"memory": np.linspace(0, 1, 8, dtype=np.float32)}
        self.noise_specs = specs
        self.draw = self.program.draw

    def __call__(self, inputs, noise):
        return self.program.run(inputs, noise)


class ZeroActor:
    """Always chooses 0, whatever it sees; a program, too."""

    backend = "numpy"
    initial_state = None
    noise_specs = ()

    def __init__(self):
        source = (
            "def program(inputs, weights, noise):\n"
            "    actions = np.zeros(len(inputs['previous_rewards']), 'int64')\n"
            "    return {'actions': actions, 'state': ()}\n"
        )
        self.program = Program(source, {"np": np}, [], [])
        self.draw = self.program.draw

    def __call__(self, inputs, noise):
        return self.program.run(inputs, noise)


class Walk(gymnasium.Env):
    """Episodes of given lengths with random observations; ends in turn in both ways."""

    def __init__(self, context):
        self.length = context.get("length", LENGTHS[context.env_index % len(LENGTHS)])
        self.observation_space = spaces.Dict(
            vector=spaces.Box(-9, 9, (8,), np.float32), flags=spaces.MultiBinary(2)
        )
        self.action_space = spaces.Discrete(3)
        self.context = context
        self.episodes = 0
        self.phase = 0

    def observe(self):
        vector = self.np_random.standard_normal(8).astype(np.float32).clip(-9, 9)
        return {
            "vector": vector,
            "flags": self.np_random.integers(2, size=2, dtype="i1"),
        }

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.episodes += 1
        self.time = 0
        return self.observe(), {"episode": self.episodes}

    def step(self, action):
        time.sleep(self.context.get("nap", 0.0))
        self.time += 1
        end = self.time >= self.length
        terminated = end and self.episodes % 3 == 0
        truncated = end and self.episodes % 3 != 1 or (end and not terminated)
        info = {"cost": float(action), "place": self.time}
        return self.observe(), float(action) - 0.5, terminated, truncated, info

    def set_phase(self, phase):
        self.phase = phase


def generators(number):
    return [np.random.default_rng((7, index)) for index in range(number)]


def assert_equal(found, expected):
    leaves, structure = optree.tree_flatten(expected)
    for path, a, b in zip(
        optree.tree_paths(expected),
        structure.flatten_up_to(found),
        leaves,
        strict=True,
    ):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.shape == b.shape, path
        np.testing.assert_array_equal(a, b, err_msg=str(path))


class Listener:
    """Writes down all that it hears of episodes."""

    def __init__(self):
        self.heard = []

    def note(self, kind, episode):
        episode = dataclasses.asdict(episode)
        self.heard.append((kind, {**episode, "user_data": None}))

    def on_episode_begin(self, episode):
        self.note("begin", episode)

    def on_episode_step(self, episode):
        self.note("step", episode)

    def on_episode_end(self, episode):
        episode.custom_metrics["last"] = episode.info["place"]
        self.note("end", episode)


def wait_for_end(pid, seconds=5.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                state = file.read().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def begun(
    mode,
    num_envs=5,
    length=4,
    env=Walk,
    config=None,
    timeout=None,
    listener=None,
    cluster=None,
    **attributes,
):
    envs = make_environments(env, num_envs, config, 2, mode, timeout, cluster)
    collector = make_collector(
        envs, Actor(), length, generators(num_envs), listener=listener, all_finals=True
    )
    for name, value in attributes.items():
        setattr(collector, name, value)
    collector.exploration = {"curiosity": np.zeros(num_envs, np.float32)}
    if mode == "asynchronous":
        collector.publish(0)
    collector.reset(range(num_envs))
    return envs, collector
