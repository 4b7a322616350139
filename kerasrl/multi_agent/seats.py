"""Where agents sit that one policy acts for: what they see, carry along and did."""

import numpy as np
import optree

from kerasrl import spaces
from kerasrl.envs import EnvProtocolError
from kerasrl.envs.actions import ActionConverter
from kerasrl.envs.protocol import Misfit, Observations
from kerasrl.rollouts.rollout import take

#: Steps of a seat that noise is drawn for at once.
_DRAWN_STEPS = 128


class Seats:
    """The agents of all environments that one policy acts for, a row for each.

    Environment `e` of E has the rows `e`, `E + e`, `2 E + e`, ...: as many as agents of
    it ever sat here at the same time. An agent has its row for as long as it lives.

    What a row did is pending until its step is complete: until its agent is observed
    again, or ends. Between, it gathers rewards.

    Args:
        actor: As for `kerasrl.rollouts.Collector`.
        observation_space, action_space: `gymnasium.Space` of one agent.
        num_envs: Integer E.
        make_generator: Function of a row that returns its `numpy.random.Generator`.
        name: Of the environments, for messages.

    Attributes:
        inputs: Dict of trees `[C, ...]`, what the policy sees in each row.
        state: Tree `[C, ...]`, before the policy saw that.
        starts: bool `[C]`, whether that is the first of an episode.
        actions, next_state, extras: Trees `[C, ...]`, what is pending: as the policy
            emitted it.
        rewards: float64 `[C]`, what the pending steps have gathered.
        places: int64 `[C, 4]`, what a row sees: the index of the environment, of the
            episode in it, of the agent among `possible_agents`, and of the step.
        exploration: Function of E that returns a dict of arrays `[E, ...]`: agents of
            one environment explore alike.
    """

    def __init__(
        self, actor, observation_space, action_space, num_envs, make_generator, name
    ):
        self.actor = actor
        self.num_envs = num_envs
        self.name = name
        self.observation_space = observation_space
        self.action_space = action_space
        self.checked = Observations(observation_space)
        self._converter = ActionConverter(action_space)
        self._make_generator = make_generator
        initial = actor.initial_state
        self._initial = () if initial is None else initial
        self._rows = {
            "observations": spaces.zeros(observation_space, 1),
            "previous_actions": spaces.zeros(spaces.emitted(action_space), 1),
            "previous_rewards": np.zeros(1, np.float32),
        }
        self._first_state = optree.tree_map(
            lambda leaf: np.asarray(leaf)[None], self._initial
        )
        self.inputs = optree.tree_map(lambda leaf: leaf[:0], self._rows)
        self.state = optree.tree_map(lambda leaf: leaf[:0], self._first_state)
        self.next_state = self.state
        self.actions = self.inputs["previous_actions"]
        self.extras = None
        self.starts, self.taken = np.zeros(0, bool), np.zeros(0, bool)
        self.waits = np.zeros(0, bool)
        self.rewards = np.zeros(0)
        self.places = np.zeros((0, 4), np.int64)
        self.exploration = lambda count: {}
        self._explored = None
        self._generators, self._noise = [], None
        self._cursor = np.zeros(0, int)

    def __len__(self):
        return len(self.starts)

    def refresh(self):
        """Has the next step ask for the present exploration."""
        self._explored = None

    def sit(self, env):
        """Gives an agent that begins a row; returns its number."""
        free = np.flatnonzero(~self.taken[env :: self.num_envs])
        if not len(free):
            self._grow()
            free = np.flatnonzero(~self.taken[env :: self.num_envs])
        row = env + int(free[0]) * self.num_envs
        self.taken[row] = self.starts[row] = True
        self.waits[row], self.rewards[row] = False, 0.0
        for name in ("previous_actions", "previous_rewards"):
            for leaf in optree.tree_leaves(self.inputs[name]):
                leaf[row] = 0
        optree.tree_map(_write(row), self.state, self._initial)
        return row

    def leave(self, row):
        """Frees the row of an agent that ended."""
        self.taken[row] = False

    def leave_all(self):
        """Frees all rows: episodes do not go on."""
        self.taken[:] = False

    def see(self, row, observation, place):
        """Takes in what an agent observes at a place, on which it is to act."""
        self.places[row] = place
        try:
            self.checked.write_one(observation, self.inputs["observations"], row)
        except Misfit as misfit:
            raise EnvProtocolError(
                f"{self.name} returned an observation that does not fit. {misfit}"
            ) from None

    def copied(self, observation):
        """Returns an observation as it is kept, a tree without batch axis."""
        example = optree.tree_map(lambda leaf: leaf[0], self._rows["observations"])
        try:
            return self.checked.copy(observation, example)
        except Misfit as misfit:
            raise EnvProtocolError(
                f"{self.name} returned a last observation that does not fit. {misfit}"
            ) from None

    def act(self, rows):
        """Chooses actions in rows; they are pending then.

        Args:
            rows: Integer array `[N]`.

        Returns:
            List of N actions as environments take them.
        """
        if self._explored is None:
            of_envs = self.exploration(self.num_envs)
            blocks = len(self) // self.num_envs
            self._explored = {
                name: np.concatenate([array] * blocks)
                for name, array in of_envs.items()
            }
        inputs = take({**self._explored, **self.inputs, "state": self.state}, rows)
        outputs = self.actor(inputs, self._next_noise(rows))
        if self.extras is None:
            self.extras = {
                name: optree.tree_map(self._like, tree)
                for name, tree in outputs.items()
                if name not in ("actions", "state")
            }
        pending = {"actions": self.actions, "state": self.next_state, **self.extras}
        optree.tree_map(_write(rows), pending, {n: outputs[n] for n in pending})
        self.waits[rows], self.rewards[rows] = True, 0.0
        return self._converter.rows(take(self.actions, rows))

    def go_on(self, rows):
        """Takes in that steps are complete, whose agents live on.

        Args:
            rows: Integer array `[N]`; what they see is written already.
        """
        previous = self.inputs["previous_actions"]
        optree.tree_map(_write(rows), previous, take(self.actions, rows))
        self.inputs["previous_rewards"][rows] = self.rewards[rows]
        optree.tree_map(_write(rows), self.state, take(self.next_state, rows))
        self.starts[rows] = self.waits[rows] = False

    def _like(self, leaf):
        """Room for what is of rows, by an example `[N, ...]`."""
        return np.zeros((len(self), *np.shape(leaf)[1:]), np.asarray(leaf).dtype)

    def _next_noise(self, rows):
        if self._noise is None:
            self._noise = self.actor.draw(self._generators, _DRAWN_STEPS)
            self._cursor[:] = 0
        if not self._noise:
            return []
        for row in rows[self._cursor[rows] == _DRAWN_STEPS]:
            drawn = self.actor.draw([self._generators[row]], _DRAWN_STEPS)
            for array, own in zip(self._noise, drawn, strict=True):
                array[:, row] = own[:, 0]
            self._cursor[row] = 0
        noise = [array[self._cursor[rows], rows] for array in self._noise]
        self._cursor[rows] += 1
        return noise

    def _grow(self):
        """Adds a row for each environment."""
        count, length = self.num_envs, len(self)

        def extend(leaf, row):
            return np.concatenate([leaf, np.repeat(row, count, axis=0)])

        self.inputs = optree.tree_map(extend, self.inputs, self._rows)
        self.state = optree.tree_map(extend, self.state, self._first_state)
        self.next_state = optree.tree_map(extend, self.next_state, self._first_state)
        self.actions = optree.tree_map(
            extend, self.actions, self._rows["previous_actions"]
        )
        if self.extras is not None:
            self.extras = optree.tree_map(
                lambda leaf: extend(leaf, np.zeros((1, *leaf.shape[1:]), leaf.dtype)),
                self.extras,
            )
        for name in ("starts", "taken", "waits", "rewards", "places", "_cursor"):
            array = getattr(self, name)
            row = np.zeros((1, *array.shape[1:]), array.dtype)
            setattr(self, name, extend(array, row))
        added = [self._make_generator(row) for row in range(length, length + count)]
        self._generators += added
        if self._noise is not None:
            drawn = self.actor.draw(added, _DRAWN_STEPS)
            self._noise = [
                np.concatenate([array, own], axis=1)
                for array, own in zip(self._noise, drawn, strict=True)
            ]
        self._explored = None


def refuse_spaces(name, wanted, have):
    """Raises a ValueError unless a policy was made for the spaces of an agent.

    Args:
        name: Id of the policy.
        wanted, have: Pairs of the spaces of observations and actions.
    """
    if have != wanted:
        raise ValueError(
            f"The policy {name!r} is to act for an agent that sees {wanted[0]} and "
            f"acts in {wanted[1]}, but it was made for {have[0]} and {have[1]}. Agents "
            "of different spaces need different policies: map them so."
        )


def _write(rows):
    def write(target, values):
        target[rows] = values

    return write
