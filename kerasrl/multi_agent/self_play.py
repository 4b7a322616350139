"""Playing against one's own past: snapshots, who is drawn, ratings."""

import copy

import keras
import numpy as np

from kerasrl import checks
from kerasrl.callbacks import Callback
from kerasrl.multi_agent.snapshots import CHOICES, ProgramActor, draw_snapshot
from kerasrl.rollouts import ScriptedPolicy

#: How much one game moves a rating at most, and where ratings begin.
_STEP, _FIRST = 16.0, 1000.0


@keras.saving.register_keras_serializable("kerasrl")
class Opponents(ScriptedPolicy):
    """Snapshots of a policy that learns, as opponents of it that do not.

    A snapshot is a list of the weights that acting reads: all are played by one NumPy
    program, whose weights are swapped. Who is played is drawn for each episode. They
    act as the policy acts in training, not deterministically, and never follow it. The
    first snapshot is the policy as it was when `fit` began, or, where it had no weights
    then, when it was first met; `SelfPlay` adds more.

    Args:
        of: Id of the policy that learns.
        choose: `"uniform"`; `"latest"`; or `"prioritized"`, in proportion to
            `(1 - x) ** power`, x the share of games that the policy wins against a
            snapshot: the hardest are met most.
        power: Float, of that.

    Attributes:
        snapshots: List of lists of arrays.
        points: List of what the policy has won against each: a game won counts 1, a
            draw a half.
        games: List of how many there were.
        ratings: List of the Elo ratings of snapshots.
        rating: Float, that of the policy. A new snapshot begins with it.
        history: List of lists: row k are the shares won by what became snapshot k + 1,
            against snapshots 0 to k, when it did; NaN where there was no game.

    Example:

    ```python
    agent = kerasrl.MultiAgent(
        {"main": kerasrl.PPO(), "past": Opponents("main")}, mapping=either_side
    )
    agent.fit("tic_tac_toe", steps=500_000, callbacks=[SelfPlay("past", every=20)])
    ```
    """

    def __init__(self, of, choose="uniform", power=1.0):
        if not isinstance(of, str):
            raise TypeError(f"Received of={of!r}. Expected the id of a policy.")
        self.of = of
        self.choose = checks.choice("choose", choose, CHOICES)
        self.power = checks.positive("power", power)
        self.snapshots, self.points, self.games, self.ratings = [], [], [], []
        self.rating = _FIRST
        self.history = []
        self._main = None
        self._recent = [0.0, 0]
        self._odds = np.zeros(0)

    def get_config(self):
        """Returns the constructor arguments."""
        return {"of": self.of, "choose": self.choose, "power": self.power}

    @classmethod
    def from_config(cls, config):
        """Makes one of what `get_config` returned."""
        return cls(**config)

    def compute_actions(self, observations, state):
        raise ValueError(
            "Opponents act in fit and evaluate of a MultiAgent only, where snapshots "
            "are drawn by episode. Ask the policy that they are of."
        )

    def attach(self, main):
        """Takes over who they are snapshots of.

        Args:
            main: The `kerasrl.Agent`, built.

        Raises:
            ValueError: It does not act in NumPy.
        """
        if main.actor().program is None:
            raise ValueError(
                f"The policy {self.of!r} acts by TensorFlow, so its snapshots cannot "
                f"be swapped: {main.actor().report['reason']}."
            )
        self._main = main

    def actor(self):
        """Returns what acts, by the weights that its `weights` were set to."""
        if not self.snapshots:
            self.add()
        self.settle()
        main = self._main.actor()
        return ProgramActor(main.program, main.initial_state)

    def add(self):
        """Keeps a copy of the present weights of the policy."""
        if self._main is None:
            raise RuntimeError(
                f"Nobody has played against snapshots of {self.of!r} yet. Call fit "
                "first."
            )
        actor = self._main.actor()
        actor.refresh()
        if self.snapshots:
            self.history.append(self.shares(None).tolist())
        self.snapshots.append([np.array(each) for each in actor.program.weights])
        self.ratings.append(self.rating)
        # What follows is against a policy that is better, it is hoped.
        self.points = [0.0] * len(self.snapshots)
        self.games = [0] * len(self.snapshots)

    def shares(self, prior=1.0):
        """Returns the shares of games won against each snapshot since the last.

        Args:
            prior: Float, games that are taken to have been won and lost before; `None`
                for none, and NaN where there was no game.
        """
        points, games = np.array(self.points), np.array(self.games, float)
        if prior is None:
            return np.where(games > 0, points / np.maximum(games, 1), np.nan)
        return (points + prior) / (games + 2 * prior)

    def matrix(self):
        """Returns the shares that each snapshot won against each other.

        Returns:
            Float `[K + 1, K + 1]`, the last row and column of the policy itself; NaN
            where there was no game.
        """
        count = len(self.snapshots)
        found = np.full((count + 1, count + 1), np.nan)
        for row, shares in enumerate([*self.history, self.shares(None)], 1):
            found[row, : len(shares)] = shares
        upper = np.triu_indices(count + 1, 1)
        found[upper] = 1.0 - found.T[upper]
        return found

    def settle(self):
        """Settles by what odds is drawn until the next call; returns them, an array."""
        self._odds = (1.0 - self.shares()) ** self.power
        return self._odds

    def draw(self, rng):
        """Returns the number of a snapshot to play against.

        In training the games of an iteration count from the next on, so that nothing
        depends on which of them ends first.
        """
        if len(self._odds) != len(self.snapshots):
            self.settle()
        return draw_snapshot(rng, self.choose, self._odds)

    def note(self, number, points):
        """Takes in how a game against a snapshot ended.

        Args:
            number: Integer, of the snapshot.
            points: 1 if the policy won, 0.5 for a draw, 0.
        """
        self.points[number] += points
        self.games[number] += 1
        self._recent[0] += points
        self._recent[1] += 1
        expected = 1.0 / (1.0 + 10.0 ** ((self.ratings[number] - self.rating) / 400.0))
        self.rating += _STEP * (points - expected)
        self.ratings[number] -= _STEP * (points - expected)

    def drain_logs(self):
        """Returns what there is to log since the last call."""
        points, games = self._recent
        self._recent = [0.0, 0]
        shares = self.shares(None)
        known = shares[~np.isnan(shares)]
        return {
            "elo": self.rating,
            "snapshots": float(len(self.snapshots)),
            "win_rate": points / games if games else float("nan"),
            "win_rate_min": float(known.min()) if len(known) else float("nan"),
        }

    def get_state(self):
        """Returns all but the weights of snapshots, JSON-compatible data."""
        names = ("points", "games", "ratings", "rating")
        history = [
            [None if np.isnan(share) else share for share in row]
            for row in self.history
        ]
        counts = [len(each) for each in self.snapshots]
        state = {name: copy.copy(getattr(self, name)) for name in names}
        recent = list(self._recent)
        return {**state, "history": history, "counts": counts, "recent": recent}

    def get_arrays(self):
        """Returns the weights of all snapshots, a list of arrays."""
        return [array for each in self.snapshots for array in each]

    def set_state(self, state, arrays):
        """Restores what `get_state` and `get_arrays` returned."""
        counts = state["counts"]
        lengths = {n: len(state[n]) for n in ("points", "games", "ratings")}
        rows = [len(row) for row in state["history"]]
        if (
            sum(counts) != len(arrays)
            or set(lengths.values()) != {len(counts)}
            or rows != list(range(1, len(counts)))
        ):
            raise ValueError(
                f"The saved snapshots are damaged: {len(arrays)} arrays, expected "
                f"{sum(counts)} for {len(counts)} snapshots, with {lengths} and "
                f"{len(rows)} rows of shares, {rows} in each."
            )
        rest = iter(arrays)
        self.snapshots = [[next(rest) for _ in range(count)] for count in counts]
        for name in ("points", "games", "ratings", "rating"):
            setattr(self, name, copy.copy(state[name]))
        # Older files have none.
        self._recent = list(state.get("recent", [0.0, 0]))
        self.history = [
            [float("nan") if share is None else share for share in row]
            for row in state["history"]
        ]


class SelfPlay(Callback):
    """Adds a snapshot of the policy that learns to its opponents, from time to time.

    Args:
        opponents: Id of a policy that is an `Opponents`.
        every: Integer or `None`, iterations after which one is added.
        win_rate: Float or `None`, the share of games that, when won against all
            snapshots since the last, adds one.
        min_games: Integer, games before `win_rate` is looked at.

    Raises:
        ValueError: Neither `every` nor `win_rate` is given.

    Example:

    ```python
    agent.fit("tic_tac_toe", steps=500_000, callbacks=[SelfPlay("past", every=20)])
    agent.agents["past"].matrix()
    ```
    """

    def __init__(self, opponents, every=None, win_rate=None, min_games=100):
        super().__init__()
        if every is None and win_rate is None:
            raise ValueError(
                "Received neither every nor win_rate. Say when a snapshot is added: "
                "every=20 iterations, or at win_rate=0.7."
            )
        self.opponents = opponents
        self.every = checks.positive_integer("every", every, optional=True)
        self.win_rate = (
            None if win_rate is None else checks.fraction("win_rate", win_rate)
        )
        self.min_games = checks.positive_integer("min_games", min_games)

    def _found(self):
        found = getattr(self.agent, "agents", {}).get(self.opponents)
        if not isinstance(found, Opponents):
            raise ValueError(
                f"SelfPlay was given {self.opponents!r}, which is no Opponents of this "
                f"agent: {found!r:.100}."
            )
        return found

    def on_train_begin(self, logs=None):
        self._found()

    def on_train_batch_end(self, batch, logs=None):
        found = self._found()
        is_due = self.every is not None and self.agent.iterations % self.every == 0
        if self.win_rate is not None and sum(found.games) >= self.min_games:
            share = sum(found.points) / sum(found.games)
            is_due = is_due or share >= self.win_rate
        if is_due and found.snapshots:
            found.add()
