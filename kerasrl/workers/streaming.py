"""The fragments of one worker that acts by itself, as the learner sees them."""

import collections
import copy
import dataclasses
from functools import partial
from typing import Any

import numpy as np
import optree

from kerasrl.rollouts.rollout import Rollout, take
from kerasrl.workers import channel
from kerasrl.workers.environments import WorkerEnvironments
from kerasrl.workers.fragments import (
    begin_generators_anew,
    fragment_example,
    read_fragment,
)
from kerasrl.workers.pool import WorkerLost
from kerasrl.workers.recording import RecordedCollector

#: Numbers that a worker writes beside each fragment: the version of the weights that it
#: acted by; seconds that it waited for a place to write to, and that it acted.
REPORT = ("version", "waited", "worked")


@dataclasses.dataclass
class Fragment:
    """What a worker collected, taken out of shared memory.

    Args:
        rollout: `Rollout` `[T, b, ...]`.
        infos: List of T lists of b dicts, or `None`.
        report: Dict with the entries of `REPORT`, and `"finished"`, when it was done.
        reset_infos: `None`; or, if a new process began it with new episodes, the list
            of what their resets said.
    """

    rollout: Rollout
    infos: Any
    report: dict
    reset_infos: list | None


class FragmentStream(RecordedCollector):
    """Fragments of one worker, in the order in which it collected them.

    The worker has places for a few fragments. It is asked for one for each place that
    is free, collects them one after the other, each with the weights that are published
    when it begins, and waits when all places are taken.

    Args:
        collector: The `AsynchronousCollector` whose arguments hold for it.
        worker: Integer, which worker of its pool.
        published: `Published`, what it acts by.

    Attributes:
        own: Slice, its environments among those of all workers.
        watch: `Watch` since it has something to do, or `None`.
        lost_steps: Integer, environment steps that were lost with the worker.
    """

    def __init__(self, collector, worker, published):
        pool = collector.pool
        self.own = pool.slices[worker]
        super().__init__(
            WorkerEnvironments(pool=pool, workers=[worker]),
            collector.actor,
            collector.rollout_length,
            collector.generators[self.own],
            collector.info_keys,
            collector.listener,
            collector.all_finals,
        )
        self.pool, self.worker = pool, worker
        self.lost_steps, self.watch = 0, None
        self._published = published
        self._exploration = take(collector.exploration, self.own)
        self._num_places = collector.in_flight
        self._shared = None
        #: Versions that were published when it was asked for what is not received yet.
        self._asked_at = collections.deque()
        self._received = collections.deque()
        self._reset_infos = None
        self._count = 0
        self._generation = None

    # What is known of it -------------------------------------------------------

    @property
    def is_ready(self):
        """Whether the process is the one that was prepared, in episodes that began."""
        return self._generation == self.pool.generations[self.worker]

    @property
    def asked(self):
        """Number of fragments that it was asked for and that were not received."""
        return len(self._asked_at)

    @property
    def has_received(self):
        """Whether there is a fragment that was received and not taken."""
        return bool(self._received)

    @property
    def held(self):
        """Number of fragments that it was asked for and that were not taken."""
        return self.asked + len(self._received)

    @property
    def num_finished(self):
        """Number of fragments that it has finished and that were not taken."""
        finished = len(self._received)
        if self._shared is not None:
            finished += int(self._shared.tree["count"][0]) - self._count
        return finished

    @property
    def finished_at(self):
        """When the oldest fragment that was received and not taken was done."""
        return self._received[0].report["finished"]

    def had_finished(self, moment):
        """Whether a fragment that was not received yet was done at a moment."""
        if self.num_finished == len(self._received):
            return False
        return float(self._place()["finished"][0]) <= moment

    def versions(self):
        """Returns the versions by which it may be acting, or has and was not taken."""
        return [*self._asked_at, *(int(f.report["version"]) for f in self._received)]

    # Beginning -----------------------------------------------------------------

    def prepare(self):
        """Tells the worker all that it needs to act."""
        while not self.is_ready:
            generation = self.pool.generations[self.worker]
            self._prepare(self.pool.request)
            self._generation = generation

    def begin(self, seeds):
        """Starts new episodes; see `Collector.reset`."""
        self._begin_recording(self.envs.reset(seeds))
        if self.is_ready:
            # While the worker is at rest: it is asked for what its resets said.
            self._start_tracking()

    def restart(self, reason):
        """Puts a new process in the place of a lost worker, with new episodes.

        Nothing of a fragment that it did not finish is kept.

        Args:
            reason: `WorkerLost`.
        """
        pool, worker = self.pool, self.worker
        num_envs = self.envs.num_envs
        self.lost_steps += self.asked * self.rollout_length * num_envs
        self._asked_at.clear()
        seeds = [0] * self.own.start + begin_generators_anew(self.generators)
        # One that has been replaced already knows nothing yet.
        reason = reason if self.is_ready else None
        prepare = partial(self._prepare, pool.attempt)
        _, self._reset_infos = self._begin_anew(worker, reason, prepare, seeds)
        self._generation = pool.generations[worker]

    def _prepare(self, ask):
        program = copy.copy(self.actor.program)
        program.weights = None  # They are read from where they are published.
        fields = {
            "program": program,
            "initial_state": self.actor.initial_state,
            "rollout_length": self.rollout_length,
            "generators": self.generators,
            # Episode hooks are told of every end, and need what followed it.
            "all_finals": self.all_finals or self.listener is not None,
        }
        shared = self._published.shared
        ask(
            self.worker,
            "prepare_streaming",
            fields,
            shared.layout,
            shared=shared,
        )
        self._shared = None

    # Fragments -----------------------------------------------------------------

    def ask(self, version):
        """Asks for a fragment; there must be a free place.

        Args:
            version: Integer, which weights are published now.

        Raises:
            WorkerLost: The worker is gone.
        """
        if not self.is_ready:
            raise WorkerLost("It was replaced.", self.worker)
        if self._shared is None:
            self._share_places()
        self.pool.signal(self.worker, channel.COLLECT)
        if not self._asked_at:
            self.watch = self.pool.watch(self.worker)
        self._asked_at.append(version)

    def receive(self):
        """Waits for the oldest fragment asked for, and takes it out of shared memory.

        Raises:
            WorkerLost: The worker is gone.
            Exception: Whatever was raised in it.
        """
        try:
            infos = self.pool.receive(self.worker)
        except WorkerLost:
            raise
        except Exception:
            self._asked_at.popleft()
            raise
        self._asked_at.popleft()
        place = self._place()
        self._count += 1
        self._received.append(
            Fragment(
                optree.tree_map(np.array, read_fragment(place["fragment"])),
                None if infos is None else [channel.loads(row) for row in infos],
                {
                    **dict(zip(REPORT, place["report"].tolist(), strict=True)),
                    "finished": float(place["finished"][0]),
                },
                self._reset_infos,
            )
        )
        self._reset_infos = None
        self.pool.note_steps(self.worker, self.rollout_length)

    def stop(self):
        """Has the worker break off what it is collecting, for good."""
        if self._shared is not None:
            self._shared.tree["stop"][0] = 1
            self._shared.wrote(("stop",), within=0.0)

    def take(self):
        """Hands out the oldest `Fragment` received."""
        return self._received.popleft()

    def record(self, fragment, env_steps):
        """Tells hooks of a fragment, and statistics; call it in the order of `take`.

        Args:
            fragment: What `take` returned.
            env_steps: Integer, environment steps of all workers before it.

        Returns:
            A `Rollout`.
        """
        self.env_steps = env_steps
        if fragment.reset_infos is not None:
            # Only now: what was received before is of the episodes before.
            self._begin_again(fragment)
        rollout = self._record(fragment.rollout, fragment.infos or [], {})
        rollout.first_env = self.own.start
        return rollout

    def drain_episodes(self):
        records = super().drain_episodes()
        for record in records:
            record.env_index += self.own.start
        return records

    def _begin_again(self, fragment):
        """Forgets the episodes that were lost, in favour of those of a new process."""
        self._running_episodes.begin(np.ones(self.envs.num_envs, bool))
        if self._tracker is not None:
            first = take(fragment.rollout.observations, 0)
            for env, info in enumerate(fragment.reset_infos):
                self._tracker.begin(env, take(first, env), info)

    def _place(self):
        places = self._shared.tree["places"]
        return places[self._count % len(places)]

    def _share_places(self):
        """Makes the memory for fragments."""
        fragment = fragment_example(
            self.envs,
            self.envs.num_envs,
            self.rollout_length,
            self.actor,
            self._exploration,
        )
        place = {
            "fragment": fragment,
            "report": np.zeros(len(REPORT)),
            # By the clock that all processes of a machine share.
            "finished": np.zeros(1),
        }
        self._shared = self.pool.share(
            {
                "places": [place] * self._num_places,
                "count": np.zeros(1, np.int64),
                "stop": np.zeros(1, np.int64),
            }
        )
        self._count = 0
        keys = "all" if self.listener is not None else self.info_keys or None
        self.pool.attempt(
            self.worker,
            "share_fragments",
            self._shared.layout,
            keys,
            shared=self._shared,
        )
