"""Opponents as they play: one program by many weights; no Keras, no TensorFlow."""

import copy

import numpy as np

from kerasrl.multi_agent.arena import Player

#: How opponents may be chosen.
CHOICES = ("uniform", "latest", "prioritized")


def draw_snapshot(rng, choose, odds):
    """Returns the number of a snapshot to play against.

    Args:
        rng: `numpy.random.Generator`.
        choose: One of `CHOICES`.
        odds: Array `[K]`, to which the probabilities of K snapshots are in proportion
            if they are `"prioritized"`.
    """
    count = len(odds)
    if choose == "latest" or count == 1:
        return count - 1
    if choose == "uniform":
        return int(rng.integers(count))
    return int(rng.choice(count, p=odds / odds.sum()))


class ProgramActor:
    """One program, by whichever weights.

    Args:
        program: `kerasrl.actors.Program`, which is copied.
        initial_state: As of `kerasrl.actors.Actor`.
    """

    def __init__(self, program, initial_state):
        self.initial_state = initial_state
        self._program = copy.copy(program)
        self.draw = self._program.draw

    def use(self, weights):
        """Has the next calls act by these arrays."""
        self._program.weights = weights

    def __call__(self, inputs, noise):
        return self._program.run(inputs, noise)


class OpponentPlayer(Player):
    """Snapshots while they play, each in the seats of its episodes.

    Args:
        seats: `Seats`, with the actor of `opponents`.
        opponents: `Opponents`, or others that have `snapshots` and `draw`.
        name: Their id.
    """

    def __init__(self, seats, opponents, name):
        super().__init__(seats)
        self.opponents = opponents
        self.name = name
        self._numbers: dict = {}

    def sit(self, env, episode):
        """Draws who plays in an episode; all seats of it have the same."""
        row = super().sit(env, episode)
        drawn = episode.user_data.setdefault("snapshots", {})
        if self.name not in drawn:
            drawn[self.name] = self.opponents.draw(episode.rng)
        self._numbers[row] = drawn[self.name]
        return row

    def act(self, rows):
        numbers = np.array([self._numbers[row] for row in rows.tolist()])
        actions: list = [None] * len(rows)
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            self.seats.actor.use(self.opponents.snapshots[number])
            chosen = self.seats.act(rows[places])
            for place, action in zip(places.tolist(), chosen, strict=True):
                actions[place] = action
        return actions
