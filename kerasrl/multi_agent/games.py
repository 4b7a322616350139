"""Small games with known answers: no other package is needed."""

import numpy as np
from gymnasium import spaces

from kerasrl import checks
from kerasrl.multi_agent.env import MultiAgentEnv

_PAIR = ("agent_0", "agent_1")
#: Payoffs of the team, by the choices of both.
MATRICES = {
    "additive": ((1, 5), (5, 9)),
    "coordination": ((0, 0), (0, 10)),
    "climbing": ((11, -30, 0), (-30, 7, 0), (0, 6, 5)),
    "penalty": ((-100, 0, 10), (0, 2, 0), (10, 0, -100)),
}
_LINES = (
    *((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8)),
    *((0, 4, 8), (2, 4, 6)),
)


class RockPaperScissors(MultiAgentEnv):
    """Two players choose at once; rock 0, paper 1, scissors 2.

    The observation is the last choice of the other, 3 before the first. The winner of a
    round gets 1, the loser -1.

    Args:
        rounds: Integer, rounds of an episode.
    """

    possible_agents = ["player_0", "player_1"]
    observation_spaces = dict.fromkeys(possible_agents, spaces.Discrete(4))
    action_spaces = dict.fromkeys(possible_agents, spaces.Discrete(3))

    def __init__(self, rounds=10):
        self.rounds = checks.positive_integer("rounds", rounds)
        self._played = 0

    def reset(self, *, seed=None, options=None):
        self._played = 0
        return dict.fromkeys(self.possible_agents, 3), {}

    def step(self, actions):
        first, second = (int(actions[agent]) for agent in self.possible_agents)
        self._played += 1
        # 1 beats 0, 2 beats 1, 0 beats 2.
        reward = (0.0, 1.0, -1.0)[(first - second) % 3]
        seen = {"player_0": second, "player_1": first}
        rewards = {"player_0": reward, "player_1": -reward}
        return seen, rewards, {"__all__": self._played == self.rounds}, {}, {}


class TwoStep(MultiAgentEnv):
    """The cooperative game in which what is best needs both to know what follows.

    By the first choice of `agent_0` the team comes to a state that pays 7 whatever is
    done, or to one that pays 0, 1, 1 or 8; each gets half. The state is one-hot, and is
    seen by both.

    Paper: Rashid et al. (2018), https://arxiv.org/abs/1803.11485.
    """

    possible_agents = list(_PAIR)
    observation_spaces = dict.fromkeys(_PAIR, spaces.Box(0.0, 1.0, (3,), np.float32))
    action_spaces = dict.fromkeys(_PAIR, spaces.Discrete(2))
    state_space = spaces.Box(0.0, 1.0, (3,), np.float32)

    def __init__(self):
        self._state = 0

    def reset(self, *, seed=None, options=None):
        self._state = 0
        return self._seen(), {}

    def step(self, actions):
        first, second = (int(actions[agent]) for agent in _PAIR)
        if self._state == 0:
            self._state = 1 + first
            return self._seen(), {}, {}, {}, {}
        payoff = 7.0 if self._state == 1 else ((0.0, 1.0), (1.0, 8.0))[first][second]
        rewards = dict.fromkeys(_PAIR, payoff / 2)
        return self._seen(), rewards, {"__all__": True}, {}, {}

    def state(self):
        return np.eye(3, dtype=np.float32)[self._state]

    def _seen(self):
        return {agent: self.state() for agent in _PAIR}


class MatrixGame(MultiAgentEnv):
    """Two agents choose once, and the team is paid by a table; each gets half.

    Args:
        payoffs: Name of one of `kerasrl.multi_agent.MATRICES` (`"additive"`,
            `"coordination"`, `"climbing"`, `"penalty"`), or a table `[n, m]`.

    Papers: Claus and Boutilier (1998), https://dl.acm.org/doi/10.5555/295240.295800,
    for climbing and penalty.
    """

    possible_agents = list(_PAIR)
    observation_spaces = dict.fromkeys(_PAIR, spaces.Box(0.0, 1.0, (1,), np.float32))
    state_space = spaces.Box(0.0, 1.0, (1,), np.float32)

    def __init__(self, payoffs="climbing"):
        if isinstance(payoffs, str):
            checks.choice("payoffs", payoffs, tuple(MATRICES))
            payoffs = MATRICES[payoffs]
        self.payoffs = np.asarray(payoffs, np.float64)
        if self.payoffs.ndim != 2 or not self.payoffs.size:
            raise ValueError(
                f"Received payoffs={payoffs!r:.200}. Expected a table [n, m] of "
                "numbers, or a name."
            )
        sizes = self.payoffs.shape
        self.action_spaces = {
            agent: spaces.Discrete(size)
            for agent, size in zip(_PAIR, sizes, strict=True)
        }

    def reset(self, *, seed=None, options=None):
        return {agent: self.state() for agent in _PAIR}, {}

    def step(self, actions):
        payoff = self.payoffs[tuple(int(actions[agent]) for agent in _PAIR)]
        rewards = dict.fromkeys(_PAIR, float(payoff) / 2)
        seen = {agent: self.state() for agent in _PAIR}
        return seen, rewards, {"__all__": True}, {}, {}

    def state(self):
        return np.ones(1, np.float32)


class TicTacToe(MultiAgentEnv):
    """Two players take turns; a line of three wins, 1 for the winner, -1 for the loser.

    The observation is two boards, one's own marks and those of the other, with a mask
    of the squares that are free. A square that is not ends the game, -1 for who chose
    it and 0 for the other.
    """

    possible_agents = ["x", "o"]
    observation_spaces = dict.fromkeys(
        possible_agents,
        spaces.Dict(
            observation=spaces.Box(0.0, 1.0, (18,), np.float32),
            action_mask=spaces.Box(0, 1, (9,), np.int8),
        ),
    )
    action_spaces = dict.fromkeys(possible_agents, spaces.Discrete(9))

    def __init__(self):
        self._boards = {}
        self._mover = "x"

    def reset(self, *, seed=None, options=None):
        self._boards = {agent: np.zeros(9, np.float32) for agent in ("x", "o")}
        self._mover = "x"
        return {"x": self._seen("x")}, {}

    def step(self, actions):
        (mover,) = actions
        square, other = int(actions[mover]), "o" if mover == "x" else "x"
        everybody = {agent: self._seen(agent) for agent in ("x", "o")}
        if any(board[square] for board in self._boards.values()):
            return everybody, {mover: -1.0, other: 0.0}, {"__all__": True}, {}, {}
        own = self._boards[mover]
        own[square] = 1.0
        self._mover = other
        everybody = {agent: self._seen(agent) for agent in ("x", "o")}
        if any(own[list(line)].all() for line in _LINES):
            return everybody, {mover: 1.0, other: -1.0}, {"__all__": True}, {}, {}
        if not everybody["x"]["action_mask"].any():
            return everybody, {"x": 0.0, "o": 0.0}, {"__all__": True}, {}, {}
        return {other: everybody[other]}, {}, {}, {}, {}

    def _seen(self, agent):
        own = self._boards[agent]
        others = self._boards["o" if agent == "x" else "x"]
        return {
            "observation": np.concatenate([own, others]),
            "action_mask": ((own + others) == 0).astype(np.int8),
        }


def perfect_move(observation):
    """Returns a best move of tic-tac-toe, the lowest square of those that are equal.

    Args:
        observation: Dict, what `TicTacToe` shows the player who moves.

    Returns:
        Integer, the square.
    """
    boards = np.asarray(observation["observation"]).reshape(2, 9) > 0.5
    own, other = (sum(1 << int(s) for s in np.flatnonzero(board)) for board in boards)
    moves = [s for s in range(9) if not (own | other) >> s & 1]
    return max(moves, key=lambda s: (-_value(other, own | 1 << s), -s))


_WINS = tuple(sum(1 << square for square in line) for line in _LINES)
_VALUES: dict = {}


def _value(own, other):
    """The outcome, 1, 0 or -1, for the player who moves next: `own`."""
    if any(other & win == win for win in _WINS):
        return -1
    if own | other == 511:
        return 0
    key = own, other
    if key not in _VALUES:
        free = (s for s in range(9) if not (own | other) >> s & 1)
        _VALUES[key] = max(-_value(other, own | 1 << s) for s in free)
    return _VALUES[key]
