"""What ES and ARS can: every cell of their table in the README that says yes."""

import itertools
import re

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from laplace import Laplace
from test_features import ACTIONS, OBSERVATIONS, README, AnySpaces, forbids

import kerasrl

AGENTS = {"ES": kerasrl.ES, "ARS": kerasrl.ARS}
IMAGES = "Images, by convolutions"
SPACES = {
    "Box": OBSERVATIONS["Box"],
    "Dict": spaces.Dict(
        {
            "vector": OBSERVATIONS["Box"],
            "rest": spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))]),
        }
    ),
}
GRU = {"cell": "gru", "cell_units": 3, "previous_inputs": True}
#: How each row is asked for: actions, observations, arguments of the policy.
ROWS = {
    "`Discrete` actions": ("Discrete", "Dict", {}),
    "`Box` actions": ("Box", "Dict", {}),
    "`MultiDiscrete` and `MultiBinary` actions": ("MultiBinary", "Box", {}),
    "Dict and Tuple actions, nested, of several kinds": ("Dict", "Box", {}),
    "Distributions of actions of your own, for all or for parts": (
        *("Dict", "Box"),
        {"distribution": {"move": Laplace}},
    ),
    "Autoregressive actions": ("MultiDiscrete", "Box", {"autoregressor": "made"}),
    "Dict and Tuple observations, nested to the model": ("MultiDiscrete", "Dict", {}),
    "Recurrent policies (LSTM, GRU)": ("Box", "Dict", GRU),
}
MASKS = {
    "Action masks, of a single choice": "Discrete",
    "Action masks, of `MultiDiscrete`": "MultiDiscrete",
}


def read_table():
    text = re.search(r"^\| \| ES \| ARS \|.+?\n\n", README.read_text(), re.M | re.S)
    rows = [line.strip("| ").split(" | ") for line in text.group(0).splitlines()[2:]]
    return {row[0]: dict(zip(AGENTS, row[1:], strict=True)) for row in rows if row[0]}


TABLE = read_table()


class Rewarding(AnySpaces):
    """Returns differ, by what actions add up to."""

    def step(self, action):
        observation, _, *rest = super().step(action)
        numbers = gymnasium.spaces.flatten(self.action_space, action)
        reward = float(numbers @ np.arange(1, len(numbers) + 1))
        return observation, reward + float(self.np_random.normal()), *rest


def test_the_table_has_the_rows_that_are_tried():
    others = {"Exact resume from a pickle-free checkpoint", IMAGES}
    assert {*ROWS, *MASKS, *others} == set(TABLE)
    for row, cells in TABLE.items():
        assert set(cells.values()) == {"-" if row == IMAGES else "yes"}


def test_convolutions_are_refused():
    agent = AGENTS["ES"]()
    with pytest.raises(ValueError, match="ES plays by .* no NumPy form for Conv2D"):
        agent.build(OBSERVATIONS["Dict"], ACTIONS["Discrete"])


# One of the two for each row, in turn.
@pytest.mark.parametrize(
    ("name", "row"),
    [
        pytest.param(*each, marks=() if k % 2 == k // 2 % 2 else pytest.mark.slow)
        for k, each in enumerate((n, r) for r, n in itertools.product(ROWS, AGENTS))
    ],
)
def test_rows(name, row):
    action, observation, options = ROWS[row]
    agent = AGENTS[name](policy={"hidden_units": (3,), **options}, num_pairs=2, seed=0)
    agent.compile(run_eagerly=True)

    def make():
        return Rewarding(SPACES[observation], ACTIONS[action])

    history = agent.fit(make, steps=1, num_envs=2, verbose=0).history
    assert history["gradient_norm"][0] > 0.0 and history["update_ratio"][0] > 0.0


@pytest.mark.parametrize(
    ("name", "row"), [*zip(AGENTS, MASKS, strict=True)], ids=list(AGENTS)
)
def test_masks(name, row):
    agent = AGENTS[name](num_pairs=2, noise_scale=2.0, seed=0)
    agent.compile(run_eagerly=True)
    agent.fit(forbids(MASKS[row]), steps=100, num_envs=2, verbose=0)
    assert agent.iterations > 1
