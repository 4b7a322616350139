"""The feature matrix of the README: every cell that says yes is tried here."""

import itertools
import pathlib
import re

import gymnasium
import keras
import numpy as np
import pytest
from daily import among
from gymnasium import spaces
from laplace import Laplace

import kerasrl
from kerasrl import testing

README = pathlib.Path(__file__).parents[1] / "README.md"
ACTIONS = {
    "Discrete": spaces.Discrete(3, start=2),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
    "Box": spaces.Box(np.array([-2.0, 0.0]), np.array([1.0, 5.0]), dtype=np.float32),
    "Dict": spaces.Dict(
        {
            "move": spaces.Box(-1.0, 1.0, (2,)),
            "rest": spaces.Tuple([spaces.Discrete(3, start=2), spaces.MultiBinary(2)]),
        }
    ),
}
OBSERVATIONS = {
    "Box": spaces.Box(-1.0, 1.0, (3,), np.float32),
    "Dict": spaces.Dict(
        {
            "image": spaces.Box(0, 255, (6, 6, 1), np.uint8),
            "rest": spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))]),
        }
    ),
}
REPLAY = {"learning_starts": 0, "batch_size": 4, "buffer_size": 200}
SEQUENCES = {"burn_in": 1, "sequence_length": 4, "period": 2, "train_every": 4}
AGENTS = {
    "PG": lambda **kw: kerasrl.PG(rollout_length=8, **kw),
    "A2C": lambda **kw: kerasrl.A2C(**kw),
    "PPO": lambda **kw: kerasrl.PPO(rollout_length=8, num_epochs=1, **kw),
    "A3C": lambda **kw: kerasrl.A3C(rollout_length=8, **kw),
    "IMPALA": lambda **kw: kerasrl.IMPALA(rollout_length=8, **kw),
    "APPO": lambda **kw: kerasrl.APPO(rollout_length=8, num_epochs=1, **kw),
    "SimpleQ": lambda **kw: kerasrl.SimpleQ(**REPLAY, **kw),
    "DQN": lambda **kw: kerasrl.DQN(**REPLAY, **kw),
    "ApexDQN": lambda **kw: kerasrl.ApexDQN(**REPLAY, updates_per_call=8, **kw),
    "R2D2": lambda **kw: kerasrl.R2D2(**REPLAY, **SEQUENCES, **kw),
    "DDPG": lambda **kw: kerasrl.DDPG(**REPLAY, **kw),
    "ApexDDPG": lambda **kw: kerasrl.ApexDDPG(**REPLAY, updates_per_call=8, **kw),
    "TD3": lambda **kw: kerasrl.TD3(**REPLAY, **kw),
    "SAC": lambda **kw: kerasrl.SAC(**REPLAY, **kw),
}
ON_POLICY = ("PG", "A2C", "PPO", "A3C", "IMPALA", "APPO")
POLICIES = {
    "DDPG": kerasrl.models.DeterministicActorCritic,
    "ApexDDPG": kerasrl.models.DeterministicActorCritic,
    "TD3": kerasrl.models.DeterministicActorCritic,
    "SAC": kerasrl.models.SoftActorCritic,
    **dict.fromkeys(ON_POLICY, kerasrl.models.ActorCritic),
    **dict.fromkeys(("SimpleQ", "DQN", "ApexDQN", "R2D2"), kerasrl.models.QNetwork),
}


def read_matrix():
    """The table of the README: a dict from rows to agents to whether they can."""
    lines = re.search(
        r"^\| \| PG.+?\n\n", README.read_text(), re.MULTILINE | re.DOTALL
    ).group(0)
    header, _, *rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in lines.strip().splitlines()
    ]
    # The corner is empty, so the header is one cell shorter.
    return {
        row: dict(zip(header, [cell == "yes" for cell in cells], strict=True))
        for row, *cells in rows
    }


MATRIX = read_matrix()
ACTION_ROWS = {
    "Discrete": "`Discrete` actions",
    "MultiDiscrete": "`MultiDiscrete` and `MultiBinary` actions",
    "MultiBinary": "`MultiDiscrete` and `MultiBinary` actions",
    "Box": "`Box` actions",
    "Dict": "Dict and Tuple actions, nested, of several kinds",
}
MASKS = {
    "Discrete": "Action masks, of a single choice",
    "MultiDiscrete": "Action masks, of `MultiDiscrete`",
}
HINDSIGHT = "Goals, with hindsight experience replay ([docs/goals.md](docs/goals.md))"
RECURRENT = "Recurrent policies (LSTM, GRU)"
SEVERAL = (
    "One of several policies in an environment "
    "([docs/multi_agent.md](docs/multi_agent.md))"
)


def policy_of(name, cell="gru"):
    """Arguments of a small policy, with a cell if the agent can have one."""
    arguments = {"hidden_units": (4,)}
    # With memory, those of critics are tried by tests/agents/test_remembering.py.
    by_critics = name in ("DDPG", "ApexDDPG", "TD3", "SAC")
    if cell is not None and MATRIX[RECURRENT][name] and not by_critics:
        arguments.update(cell=cell, cell_units=4)
    return arguments


def fit(agent, action, observation="Box"):
    agent.compile(jit_compile=False)

    def make():
        return AnySpaces(OBSERVATIONS[observation], ACTIONS[action])

    history = agent.fit(make, steps=48, num_envs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all() and history["gradient_norm"][0] > 0.0


class AnySpaces(gymnasium.Env):
    """Random observations; ends in both ways; refuses actions outside its space."""

    def __init__(self, observation_space, action_space):
        self.observation_space = observation_space
        self.action_space = action_space
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.steps += 1
        terminated, truncated = self.steps == 3, self.steps > 3
        return self.observation_space.sample(), 1.0, terminated, truncated, {}


#: Every action space for one of those which have networks and rollouts in common;
#: the others are among the trials of tests/matrix.
SPACES_AND_RECURRENCE = [("PPO", "Dict", action, "gru") for action in ACTIONS]
SPACES_AND_RECURRENCE += [("PPO", "Box", "Dict", None)]
# The other combinations of what each is tried with above.
SPACES_AND_RECURRENCE += [
    pytest.param(*each, marks=pytest.mark.slow)
    for each in itertools.product(ON_POLICY, OBSERVATIONS, ACTIONS, (None, "gru"))
    if each not in SPACES_AND_RECURRENCE
]


@pytest.mark.parametrize("name, observation, action, cell", SPACES_AND_RECURRENCE)
def test_spaces_and_recurrence(name, observation, action, cell):
    assert MATRIX[ACTION_ROWS[action]][name] and MATRIX[RECURRENT][name]
    fit(AGENTS[name](policy=policy_of(name, cell)), action, observation)


#: One for each network; what has a network in common has its spaces in common.
DAILY_ACTIONS = {
    *itertools.product(["DQN"], ACTIONS),
    *itertools.product(["SAC"], ["Discrete", "Box"]),
    *(("R2D2", "MultiDiscrete"), ("DDPG", "Box")),
}


@pytest.mark.parametrize(
    ("name", "action"),
    [
        pytest.param(
            *each,
            # Refusals take no time.
            marks=()
            if each in DAILY_ACTIONS or not MATRIX[ACTION_ROWS[each[1]]][each[0]]
            else pytest.mark.slow,
        )
        for each in itertools.product(AGENTS, ACTIONS)
        if each[0] not in ON_POLICY
    ],
)
def test_actions(name, action):
    agent = AGENTS[name](policy=policy_of(name))
    if MATRIX[ACTION_ROWS[action]][name]:
        fit(agent, action, "Dict")
        return
    with pytest.raises(TypeError, match="kerasrl") as raised:
        fit(agent, action)
    assert str(ACTIONS[action]) in str(raised.value)


@pytest.mark.parametrize("name", [n for n in AGENTS if not MATRIX[RECURRENT][n]])
def test_recurrent_policies_are_refused(name):
    """Those that learn from single steps, which do not hold what came before."""
    with pytest.raises((TypeError, ValueError), match="cell|R2D2"):
        fit(AGENTS[name](policy={"cell": "gru"}), action_of(name))

    class Recurrent(POLICIES[name]):
        def get_initial_state(self, batch_size):
            return keras.ops.zeros((batch_size, 1))

        def call(self, inputs, state=None, training=False):
            return {**super().call(inputs, None, training), "state": state + 1.0}

    with pytest.raises(ValueError, match="R2D2"):
        fit(AGENTS[name](policy=Recurrent()), action_of(name))


@pytest.mark.parametrize("name", AGENTS)
def test_hindsight(name):
    """`tests/agents/test_goals.py` trains them."""
    if MATRIX[HINDSIGHT][name]:
        assert AGENTS[name](hindsight="future").hindsight == "future"
        return
    with pytest.raises((TypeError, ValueError), match="hindsight"):
        AGENTS[name](hindsight="future")


@pytest.mark.parametrize("name", AGENTS)
def test_several_policies(name):
    """`tests/multi_agent` trains them."""
    if MATRIX[SEVERAL][name]:
        kerasrl.MultiAgent({"one": AGENTS[name]()})
        return
    with pytest.raises(TypeError, match="workers of its own"):
        kerasrl.MultiAgent({"one": AGENTS[name]()})


def action_of(name):
    return "Discrete" if MATRIX[ACTION_ROWS["Discrete"]][name] else "Box"


def forbids(action):
    """An environment where one option of each choice is illegal, and an error."""
    options = [3, 4] if action == "MultiDiscrete" else 3
    return lambda: testing.IllegalActionsEnv(options, 1, episode_length=5)


#: How each row of distributions is asked of a policy, and for which actions.
DISTRIBUTIONS = {
    "Distributions of actions of your own, for all or for parts": (
        "Dict",
        {"distribution": {"move": Laplace}},
    ),
    "Autoregressive actions": ("MultiDiscrete", {"autoregressor": "made"}),
    "State-dependent exploration (gSDE) of `Box` actions": ("Box", {"noise_steps": 2}),
}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        pytest.param(
            *each,
            # Every day, tests/agents/test_{custom,autoregressive,held_noise}_*.py.
            marks=pytest.mark.slow if MATRIX[each[1]][each[0]] else (),
        )
        for each in itertools.product(AGENTS, DISTRIBUTIONS)
    ],
)
def test_distributions(name, row):
    action, arguments = DISTRIBUTIONS[row]
    if MATRIX[row][name]:
        fit(AGENTS[name](policy={**policy_of(name), **arguments}), action)
        return
    with pytest.raises(TypeError, match=next(iter(arguments))):
        AGENTS[name](policy=arguments)


#: Those that tests/agents/test_masks.py does not try every day, the rest slow.
_DAILY_MASKS = [("PPO", "MultiDiscrete"), ("A2C", "Discrete"), ("DQN", "Discrete")]


@pytest.mark.parametrize(
    ("name", "action"),
    [
        pytest.param(
            *each,
            marks=()
            if each in _DAILY_MASKS or not MATRIX[MASKS[each[1]]][each[0]]
            else pytest.mark.slow,
        )
        for each in itertools.product(AGENTS, MASKS)
    ],
)
def test_masks(name, action):
    agent = AGENTS[name](policy=policy_of(name))
    agent.compile(jit_compile=False)
    run = lambda: agent.fit(forbids(action), steps=40, num_envs=2, verbose=0)  # noqa: E731
    if MATRIX[MASKS[action]][name]:
        run()
        return
    with pytest.raises(TypeError, match="action space"):
        run()


# One of each kind of update.
@pytest.mark.parametrize("name", among(AGENTS, ["PPO", "R2D2", "SAC"]))
def test_custom_loss_and_metrics(name):
    class Frozen(POLICIES[name]):
        """Throws the algorithm's loss away: no weight may move."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.tracker = keras.metrics.Mean(name="mean_of_squares")

        def custom_loss(self, loss, batch):
            self.seen = sorted(batch)
            self.tracker.update_state([1.0, 4.0, 9.0])
            return 0.0 * loss

        def custom_metrics(self, batch):
            return {"seven": keras.ops.convert_to_tensor(7.0)}

    agent = AGENTS[name](policy=Frozen(**policy_of(name)))
    agent.compile(jit_compile=False)
    spaces_of = (OBSERVATIONS["Box"], ACTIONS[action_of(name)])
    agent.build(*spaces_of)
    before = agent.get_weights()
    history = agent.fit(
        lambda: AnySpaces(*spaces_of), steps=64, num_envs=4, verbose=0
    ).history
    assert history["seven"] == [7.0]
    np.testing.assert_allclose(history["mean_of_squares"], 14 / 3, rtol=1e-6)
    assert {"observations", "actions", "outputs", "mask"} <= set(agent.policy.seen)
    assert "advantages" in agent.policy.seen or hasattr(agent, "buffer")
    for old, new in zip(before, agent.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", among(["DQN", "R2D2", "SAC"], ["DQN", "SAC"]))
def test_custom_losses_train_the_policy(name):
    """The gradient of what `custom_loss` returns is the one that is applied."""

    class Pulled(POLICIES[name]):
        def custom_loss(self, loss, batch):
            squares = [keras.ops.sum(w**2) for w in self.trainable_variables]
            return 0.0 * loss + 0.5 * sum(squares)

    agent = AGENTS[name](policy=Pulled(**policy_of(name)))
    agent.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    make = lambda: AnySpaces(OBSERVATIONS["Box"], ACTIONS["Discrete"])  # noqa: E731
    agent.fit(make, steps=64, num_envs=2, verbose=0)
    for variable in agent.policy.trainable_variables:
        np.testing.assert_array_equal(variable, 0.0)


@pytest.mark.parametrize("name", among(["DQN", "SAC", "TD3"], ["DQN", "SAC"]))
def test_regularizers_join_the_loss_of_off_policy_agents(name):
    losses = []
    for regularizer in (None, keras.regularizers.L2(10.0)):
        trunk = keras.Sequential(
            [
                keras.layers.Dense(
                    4,
                    kernel_initializer=keras.initializers.GlorotUniform(seed=0),
                    kernel_regularizer=regularizer,
                )
            ]
        )
        agent = AGENTS[name](policy=trunk, seed=0)
        agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
        env = AnySpaces(OBSERVATIONS["Box"], ACTIONS[action_of(name)])
        history = agent.fit(env, steps=16, verbose=0).history
        losses.append(history["loss"][-1])
    assert losses[1] > losses[0] + 1.0


@pytest.mark.parametrize("name", [n for n in AGENTS if n not in ON_POLICY])
def test_wrong_kind_of_policy_is_refused_by_the_name_of_the_right_one(name):
    base = (
        "ActionValuePolicy"
        if name in ("DDPG", "ApexDDPG", "TD3", "SAC")
        else "QFunction"
    )
    for policy in (["mlp"], kerasrl.models.ActorCritic(), 3):
        with pytest.raises(TypeError, match=f"kerasrl.models.{base}"):
            AGENTS[name](policy=policy)


@pytest.mark.parametrize(
    "options, network",
    [
        ({"dueling": True}, {}),
        ({"noisy": True}, {}),
        ({"num_quantiles": 5}, {}),
        ({"num_atoms": 5, "v_min": 0.0, "v_max": 1.0}, {}),
        (
            {"num_atoms": 5, "v_min": 0.0, "v_max": 1.0},
            {"num_atoms": 5, "v_min": 0.0, "v_max": 2.0},
        ),
    ],
)
def test_options_that_contradict_a_given_network_are_refused(options, network):
    network = kerasrl.models.QNetwork(**network)
    with pytest.raises(ValueError, match="Received .* with a policy whose"):
        kerasrl.DQN(policy=network, **options)


def test_options_that_agree_with_a_given_network_are_accepted():
    network = kerasrl.models.QNetwork(dueling=True)
    assert kerasrl.DQN(policy=network, dueling=True).policy is network
    assert kerasrl.DQN(policy={"dueling": True}).policy.dueling


def test_regularizers_join_the_loss():
    losses = []
    for regularizer in (None, keras.regularizers.L2(0.1)):
        keras.utils.set_random_seed(0)
        trunk = keras.Sequential(
            [keras.layers.Dense(8, kernel_regularizer=regularizer)]
        )
        agent = kerasrl.A2C(policy=trunk, seed=0)
        losses.append(agent.fit("CartPole-v1", steps=40, verbose=0).history["loss"][0])
    assert losses[1] > losses[0] + 0.01


@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP", "DISABLED"])
@pytest.mark.parametrize("name", ["A2C", "DQN"])
def test_vector_envs_train(name, mode):
    envs = gymnasium.make_vec(
        "CartPole-v1",
        num_envs=3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode[mode]},
    )
    agent = AGENTS[name](policy={"hidden_units": (4,)}, seed=0)
    agent.compile(jit_compile=False)
    history = agent.fit(envs, steps=600, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert agent.episodes > 10
    envs.close()


def test_the_matrix_names_the_agents():
    for row, cells in MATRIX.items():
        assert list(cells) == list(AGENTS), row
    # Rows that hold for all of them.
    for row in MATRIX:
        some = (RECURRENT, HINDSIGHT, SEVERAL, *MASKS.values())
        if "actions" not in row and row not in some:
            assert all(MATRIX[row].values()), row
