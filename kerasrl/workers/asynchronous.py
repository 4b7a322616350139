"""Collecting without waiting: workers act while the learner learns."""

import contextlib
import time

import numpy as np
import optree

from kerasrl.workers.fragments import join_fragments
from kerasrl.workers.pool import WorkerLost
from kerasrl.workers.publishing import Published
from kerasrl.workers.recording import RecordedCollector
from kerasrl.workers.settings import refuse_uneven
from kerasrl.workers.streaming import FragmentStream

#: Fragments of a worker that may be in the making or wait to be learnt from.
IN_FLIGHT = 2


class AsynchronousCollector(RecordedCollector):
    """Hands out the fragments of workers that act by themselves, the oldest first.

    A worker takes over the weights that are published when it begins a fragment, and no
    others before the next. It begins the next as soon as one is done, up to `in_flight`
    of them that were not taken; then it waits. So memory is bounded, and nothing is
    thrown away. How old the weights are by which a fragment was acted depends on how
    many fragments were taken while it was made: few, unless others are much faster.

    A worker that is lost is replaced, and begins new episodes; fragments that it had
    not finished are dropped whole.

    Args:
        envs: `WorkerEnvironments` with as many environments in each worker.
        actor: A `kerasrl.actors.Actor` whose backend is NumPy.
        rollout_length, generators, info_keys, listener, all_finals: As for
            `kerasrl.rollouts.Collector`. The listener is told of the steps of a
            fragment when it is taken.

    Attributes:
        in_flight: Integer, fragments of a worker that may be in the making or wait.
            With one, it acts only after what it did before was learnt from.
        num_fragments: Integer, how many fragments are handed out together, side by
            side. Who takes them is waited for less often, and their places are free as
            soon as they have been taken out of shared memory.
        version: Integer, of the weights published last.

    Raises:
        ValueError: The actor has no NumPy program to send, or workers have different
            numbers of environments.

    Example:

    ```python
    envs = WorkerEnvironments("CartPole-v1", num_envs=8, num_workers=2)
    collector = AsynchronousCollector(envs, agent.actor(), 128, generators)
    collector.reset(list(range(8)))
    collector.publish(version=0)
    fragment = collector.collect()  # [128, 4, ...]
    ```
    """

    def __init__(
        self,
        envs,
        actor,
        rollout_length,
        generators,
        info_keys=(),
        listener=None,
        all_finals=False,
    ):
        super().__init__(
            envs, actor, rollout_length, generators, info_keys, listener, all_finals
        )
        if actor.program is None:
            raise ValueError(
                "Workers cannot act with this policy, because it runs in TensorFlow: "
                f"{actor.report['reason']}. Use worker_mode='step' or 'alternate'."
            )
        self.pool = pool = envs.pool
        refuse_uneven(pool.num_envs, pool.num_workers)
        self.in_flight = IN_FLIGHT
        self.num_fragments = 1
        self.version = None
        self._published = None
        self._streams = []
        self._counts = Counts()

    # What is acted by ----------------------------------------------------------

    def publish(self, version):
        """Lets workers have the present weights of the actor, and `exploration`.

        Args:
            version: Integer, which the fragments acted by them will name.

        Raises:
            ValueError: `exploration` has other arrays than before.
        """
        weights = self.actor.program.weights
        if self._published is None:
            self._published = Published.like(weights, self.exploration, self.pool.share)
        self._published.write(weights, self.exploration, version)
        self.version = version

    def versions_in_use(self):
        """Returns the set of versions that are acted by, or were and are not taken."""
        versions = {self.version}
        for stream in self._streams:
            versions.update(stream.versions())
        return versions

    # Collecting ----------------------------------------------------------------

    def reset(self, seeds=None):
        """Starts new episodes in all environments; see `Collector.reset`.

        `listener`, `info_keys`, `all_finals` and `in_flight` are taken as they are now.

        Raises:
            RuntimeError: Nothing has been published that could be acted by.
        """
        if self._published is None:
            raise RuntimeError("Call `publish` before the first `reset`.")
        self._drop()
        self._streams = [
            FragmentStream(self, worker, self._published)
            for worker in range(self.pool.num_workers)
        ]
        with self._apart():
            while not all(stream.is_ready for stream in self._streams):
                # Also those that took the place of another while all were reset.
                for stream in self._streams:
                    stream.prepare()
                for stream in self._streams:
                    stream.begin(None if seeds is None else seeds[stream.own])
        self._observations = optree.tree_map(
            lambda *leaves: np.concatenate(leaves),
            *(stream.observations for stream in self._streams),
        )
        self._counts = Counts()
        self.pool.settle, self.pool.stop = self.settle, self._stop

    def collect(self):
        """Waits for the oldest fragments that were not taken yet, `num_fragments`.

        Returns:
            A `kerasrl.rollouts.Rollout` `[T, b, ...]` of one worker, of new arrays, or
            of several, the oldest on the left. Its `first_env` says whose. Its `extras`
            have `"policy_version"`, int64, of the weights that steps were acted by.

        Raises:
            RuntimeError: `reset` has not been called.
            Exception: Whatever was raised in an environment.
        """
        if self._observations is None:
            raise RuntimeError("Call `reset` before the first `collect`.")
        self._counts.add_waiting(sum(stream.num_finished for stream in self._streams))
        # Also those whose fragments were learnt from just now, while others wait.
        with self._apart():
            self._ask()
        return join_fragments([self._take() for _ in range(self.num_fragments)])

    def _take(self):
        """Waits for the oldest fragment, and hands it out."""
        began = time.monotonic()
        with self._apart():
            stream = self._next_stream()
            fragment = stream.take()
            if self.in_flight > 1:
                self._ask()
        # Not above: episode hooks may ask for something else.
        rollout, report = stream.record(fragment, self.env_steps), fragment.report
        self.env_steps += rollout.num_steps
        self._finished += stream.drain_episodes()
        version = int(report["version"])
        rollout.extras["policy_version"] = np.full(rollout.rewards.shape, version)
        self._counts.add(
            lag=self.version - version,
            idle=time.monotonic() - began,
            report=report,
            steps=rollout.num_steps,
        )
        return rollout

    def settle(self):
        """Brings all workers to rest, and keeps what they had begun to be taken.

        The pool calls it before anything else is asked of them.
        """
        with self._apart():
            for stream in self._streams:
                while stream.asked:
                    self._receive(stream)

    def _stop(self):
        """Has workers break off, so that they can close their environments."""
        for stream in self._streams:
            stream.stop()

    def _drop(self):
        """Brings all workers to rest, whatever became of what they had begun."""
        with self._apart():
            for stream in self._streams:
                while stream.asked:
                    # Of environments that raised an error, the next too.
                    with contextlib.suppress(Exception):
                        self._receive(stream)

    def drain_counts(self):
        """Returns what was counted since the last call, a dict of floats to log."""
        counts, self._counts = self._counts, Counts()
        lost = sum(stream.lost_steps for stream in self._streams)
        for stream in self._streams:
            stream.lost_steps = 0
        return counts.logs(lost)

    @contextlib.contextmanager
    def _apart(self):
        """A context in which single workers are spoken with while others act."""
        settle, self.pool.settle = self.pool.settle, None
        try:
            yield
        finally:
            self.pool.settle = settle

    def _next_stream(self):
        """Waits until there is a fragment; returns the stream with the oldest one."""
        while True:
            having = [stream for stream in self._streams if stream.has_received]
            if having:
                # What is not received yet was done later than all that is.
                return min(having, key=lambda stream: stream.finished_at)
            self._ask()
            watches = {s.worker: s.watch for s in self._streams if s.asked}
            moment = time.monotonic()
            try:
                ready = self.pool.wait_any(watches)
            except WorkerLost as lost:
                self._streams[lost.index].restart(lost)
                continue
            for stream in (self._streams[worker] for worker in ready):
                # All that it had done: others may have done less meanwhile.
                while self._receive(stream) and stream.had_finished(moment):
                    pass

    def _ask(self):
        """Fills the free places of all workers."""
        for stream in self._streams:
            while stream.held < self.in_flight:
                try:
                    stream.ask(self.version)
                except WorkerLost as lost:
                    stream.restart(lost)

    def _receive(self, stream):
        """Whether a fragment that a worker was asked for could be received."""
        try:
            stream.receive()
        except WorkerLost as lost:
            stream.restart(lost)
            return False
        return True


class Counts:
    """What is seen of asynchronous work, added up.

    Seconds are those that pass, whatever the learner does meanwhile: learn, call back,
    or leave it to whoever iterates.
    """

    def __init__(self):
        self._since = time.monotonic()
        self._lags, self._waiting = [], []
        self._idle = self._waited = self._worked = 0.0
        self._steps = 0

    def add_waiting(self, waiting):
        """Adds how many fragments waited when the learner came for some."""
        self._waiting.append(waiting)

    def add(self, lag, idle, report, steps):
        """Adds a fragment that was taken.

        Args:
            lag: Integer, versions that were published since those that it was acted by.
            idle: Float, seconds that the learner waited.
            report: Dict, what the worker said of it.
            steps: Integer, environment steps in it.
        """
        self._lags.append(lag)
        self._idle += idle
        self._waited += report["waited"]
        self._worked += report["worked"]
        self._steps += steps

    def logs(self, lost):
        """Returns what to log.

        Args:
            lost: Integer, environment steps that were lost with workers.

        Returns:
            Dict of floats; see `docs/metrics.md`.
        """
        seconds = max(time.monotonic() - self._since, 1e-9)
        acted = self._steps + lost
        if not self._lags:
            return {}
        return {
            "policy_lag_mean": float(np.mean(self._lags)),
            "policy_lag_max": float(max(self._lags)),
            "queue_depth": float(np.mean(self._waiting)),
            "actor_waiting_share": self._waited / (self._waited + self._worked),
            "learner_waiting_share": min(1.0, self._idle / seconds),
            "acted_steps_per_second": acted / seconds,
            "discarded_share": lost / acted,
        }
