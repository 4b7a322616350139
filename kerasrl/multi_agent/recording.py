"""Trajectories of single agents become the rollouts that algorithms learn from.

A step of an agent is complete when it is observed again or ends; both kinds of records
are only told of complete ones. What an agent did and gathered since waits in its seat,
not here, so that no border of a rollout cuts it.
"""

import numpy as np
import optree

from kerasrl.rollouts.rollout import POLICY_INPUTS, Rollout, take


def make_record(seats, wanted):
    """Makes what records the steps of a policy.

    Args:
        seats: `Seats`.
        wanted: Tuple of whether it is to learn from replay, and the arguments besides
            `seats` of `ReplayedRecord` or `FreshRecord`.
    """
    is_replayed, *arguments = wanted
    return (ReplayedRecord if is_replayed else FreshRecord)(seats, *arguments)


class Steps:
    """Complete steps of several rows of seats.

    Args:
        rows: Integer array `[N]`.
        terminated, truncated: bool `[N]`.
        finals: Dict from those of the rows that ended to the last observation, a tree
            without batch axis, or `None` where nobody told it.
    """

    def __init__(self, rows, terminated, truncated, finals):
        self.rows = rows
        self.terminated = terminated
        self.truncated = truncated
        self.finals = finals


class FreshRecord:
    """Rollouts for algorithms that learn from each step once, while it is fresh.

    A column for each row of the seats, one step of its agent after the other. A rollout
    is due when the fullest column is; the others end in fillers, of which the first
    has what the last step led to. Nothing is left for the next.

    Args:
        seats: `Seats`.
        length: Integer T.
    """

    def __init__(self, seats, length):
        self.seats = seats
        self.length = length
        self._columns = self._begin()

    def _begin(self):
        self._counts = np.zeros(len(self.seats), int)
        self._finals = []
        self._state = optree.tree_map(np.copy, self.seats.state)
        return None

    def add(self, steps):
        """Takes in steps that are complete, before their seats go on."""
        seats, rows = self.seats, steps.rows
        self._fit_seats()
        if self._columns is None:
            self._columns = self._allocate()
        times = self._counts[rows]

        def write(column, values):
            column[times, rows] = values[rows]

        optree.tree_map(write, self._columns["steps"], self._of_seats())
        self._columns["terminated"][times, rows] = steps.terminated
        self._columns["truncated"][times, rows] = steps.truncated
        for row, cut in zip(rows.tolist(), steps.truncated.tolist(), strict=True):
            if cut:
                final = final_inputs(seats, row, steps.finals[row])
                self._finals.append((int(self._counts[row]), row, final))
        self._counts[rows] += 1

    @property
    def is_due(self):
        """Whether a rollout is complete."""
        return len(self._counts) > 0 and int(self._counts.max()) == self.length

    @property
    def pending(self):
        """Number of steps that are not in a rollout yet."""
        return int(self._counts.sum())

    @property
    def steps_left(self):
        """Steps of environments after which a rollout may be complete, at the least."""
        return self.length - int(self._counts.max(initial=0))

    def cut(self):
        """Returns the list of the rollouts that are due, one at most."""
        return [self.take()] if self.is_due else []

    def take(self):
        """Returns a rollout of what there is, also before it is due.

        `None` where nobody has acted here at all.
        """
        if self.seats.extras is None:
            return None
        self._fit_seats()
        if self._columns is None:
            self._columns = self._allocate()
        seats, counts, columns = self.seats, self._counts, self._columns
        valid = np.arange(self.length)[:, None] < counts
        time, env = np.nonzero(~valid)

        def fill(column, values):
            # What is pending did not happen here: what it was done on did.
            column[time, env] = values[env]

        now = {**seats.inputs, "starts": seats.starts}
        steps = columns["steps"]
        optree.tree_map(fill, {name: steps[name] for name in now}, now)
        for name in ("actions", "rewards"):
            optree.tree_map(_zero(time, env), steps[name])
        steps["places"][time, env] = -1
        columns["terminated"][time, env] = False
        columns["truncated"][time, env] = True
        rollout = Rollout(
            observations=steps["observations"],
            actions=steps["actions"],
            rewards=steps["rewards"],
            terminated=columns["terminated"],
            truncated=columns["truncated"],
            valid=valid,
            episode_starts=steps["starts"],
            previous_actions=steps["previous_actions"],
            previous_rewards=steps["previous_rewards"],
            state=self._state,
            next_inputs=optree.tree_map(
                np.copy, {**seats.inputs, "episode_starts": seats.starts}
            ),
            final=_stacked(self._finals),
            extras=steps["extras"],
            infos={"places": steps["places"]},
        )
        self._columns = self._begin()
        return rollout

    def _of_seats(self):
        seats = self.seats
        return {
            **seats.inputs,
            "starts": seats.starts,
            "actions": seats.actions,
            "rewards": seats.rewards,
            "places": seats.places,
            "extras": seats.extras,
        }

    def _allocate(self):
        def room(leaf):
            shape = (self.length, *leaf.shape)
            return np.zeros(
                shape, np.float32 if leaf is self.seats.rewards else leaf.dtype
            )

        shape = (self.length, len(self.seats))
        return {
            "steps": optree.tree_map(room, self._of_seats()),
            "terminated": np.zeros(shape, bool),
            "truncated": np.zeros(shape, bool),
        }

    def _fit_seats(self):
        """Adds columns where seats were added since."""
        missing = len(self.seats) - len(self._counts)
        if not missing:
            return

        def widen(column):
            return np.pad(column, [(0, 0), (0, missing), *[(0, 0)] * (column.ndim - 2)])

        if self._columns is not None:
            self._columns = optree.tree_map(widen, self._columns)
        self._counts = np.pad(self._counts, (0, missing))
        self._state = optree.tree_map(
            lambda old, new: np.concatenate([old, new[-missing:]]),
            self._state,
            self.seats.state,
        )


class ReplayedRecord:
    """Rollouts for algorithms that keep what they learn from.

    Whole episodes of single agents, one behind the other as they ended, as if of one
    environment: sums over several steps and sequences stay whole however agents take
    turns. An agent's steps come when it has ended; those of an episode that had begun
    before are left out.

    Args:
        seats: `Seats`; `None` for one that is given what others recorded.
        length: Integer T.
        steps_left: Integer, after how many steps of environments to look whether a
            rollout is complete.
    """

    def __init__(self, seats, length, steps_left=1):
        self.seats = seats
        self.length = length
        self.steps_left = steps_left
        self._running = {}
        self._ended = []

    def add(self, steps):
        """Takes in steps that are complete, before their seats go on."""
        seats = self.seats
        flags = zip(steps.terminated.tolist(), steps.truncated.tolist(), strict=True)
        for row, (terminated, truncated) in zip(
            steps.rows.tolist(), flags, strict=True
        ):
            own = self._running.setdefault(row, [])
            if seats.starts[row]:
                own.clear()  # Of an episode that did not end.
            elif not own:
                continue  # Of an episode whose first steps were not recorded.
            step = _copy(
                take({**seats.inputs, "actions": seats.actions}, row)
                | {"extras": take(seats.extras, row), "state": take(seats.state, row)}
            )
            step["rewards"] = np.float32(seats.rewards[row])
            step["places"] = seats.places[row].copy()
            step["terminated"], step["truncated"] = terminated, truncated
            step["final"] = None
            step["starts"] = not own
            own.append(step)
            if terminated or truncated:
                step["final"] = final_inputs(seats, row, steps.finals[row])
                self._ended += self._running.pop(row)

    @property
    def is_due(self):
        """Whether a rollout is complete."""
        return len(self._ended) >= self.length

    @property
    def pending(self):
        """Number of steps that are not in a rollout yet."""
        return len(self._ended) + sum(map(len, self._running.values()))

    def drain(self):
        """Returns the steps of the episodes that have ended, a list, and forgets."""
        ended, self._ended = self._ended, []
        return ended

    def extend(self, steps):
        """Takes in what `drain` of another returned."""
        self._ended += steps

    def cut(self):
        """Returns the list of the rollouts that are due."""
        rollouts = []
        while self.is_due:
            steps = self._ended[: self.length]
            del self._ended[: self.length]
            following = self._ended[0] if self._ended else None
            rollouts.append(self._rollout(steps, following))
        return rollouts

    def _rollout(self, steps, following):
        def column(name):
            return optree.tree_map(
                lambda *leaves: np.stack(leaves)[:, None], *(s[name] for s in steps)
            )

        # Where an episode ended, nothing goes on there.
        last = steps[-1] if following is None else following
        inputs = {
            name: optree.tree_map(lambda leaf: leaf[None], last[name])
            for name in POLICY_INPUTS
        }
        starts = np.array([following is None or following["starts"]])
        return Rollout(
            observations=column("observations"),
            actions=column("actions"),
            rewards=column("rewards"),
            terminated=column("terminated"),
            truncated=column("truncated"),
            valid=np.ones((len(steps), 1), bool),
            episode_starts=column("starts"),
            previous_actions=column("previous_actions"),
            previous_rewards=column("previous_rewards"),
            state=optree.tree_map(lambda leaf: leaf[None], steps[0]["state"]),
            next_inputs={**inputs, "episode_starts": starts},
            final=_stacked(
                [(t, 0, s["final"]) for t, s in enumerate(steps) if s["final"]]
            ),
            extras=column("extras"),
            infos={"places": column("places")},
        )


def final_inputs(seats, row, observation):
    """What follows the pending step of a row that ends, a dict of single inputs.

    Args:
        seats: `Seats`.
        row: Integer.
        observation: Tree without batch axis, as it is kept; `None` for one that nobody
            told after a termination, where it has no value.
    """
    if observation is None:
        observation = optree.tree_map(
            lambda leaf: np.zeros_like(leaf[row]), seats.inputs["observations"]
        )
    return _copy(
        {
            "observations": observation,
            "previous_actions": take(seats.actions, row),
            "previous_rewards": np.float32(seats.rewards[row]),
            "state": take(seats.next_state, row),
        }
    )


def _stacked(finals):
    if not finals:
        return None
    finals = sorted(finals, key=lambda each: each[:2])
    times, envs, inputs = zip(*finals, strict=True)
    stacked = optree.tree_map(lambda *leaves: np.stack(leaves), *inputs)
    return {"time": np.array(times), "env": np.array(envs), **stacked}


def _zero(time, env):
    def zero(column):
        column[time, env] = 0

    return zero


def _copy(tree):
    return optree.tree_map(np.array, tree)
