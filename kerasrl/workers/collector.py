"""Collecting whole rollouts in worker processes."""

import copy

import numpy as np
import optree

from kerasrl import spaces
from kerasrl.rollouts.rollout import take
from kerasrl.workers import channel
from kerasrl.workers.fragments import (
    begin_generators_anew,
    dropped_fragment,
    fragment_example,
    join_rollouts,
    read_fragment,
)
from kerasrl.workers.pool import WorkerLost
from kerasrl.workers.recording import RecordedCollector
from kerasrl.workers.shared_arrays import copy_into


class WorkerCollector(RecordedCollector):
    """Lets workers act, each in its own environments, with the learner's weights.

    The learner and a worker speak once per rollout: the worker acts by itself for T
    steps and writes what happened into shared memory. The outcome is that of
    `kerasrl.rollouts.Collector` to the last bit, however many workers there are.

    A worker that is lost is replaced. Its part of that rollout is not valid (`valid`
    False, `truncated` True), so shapes remain, and its environments begin anew.

    Args:
        envs: `WorkerEnvironments`.
        actor: A `kerasrl.actors.Actor` whose backend is NumPy.
        rollout_length, generators, info_keys, listener, all_finals: As for
            `kerasrl.rollouts.Collector`. The listener is told of the steps of a rollout
            when it is over.

    Raises:
        ValueError: The actor has no NumPy program to send.

    Example:

    ```python
    envs = WorkerEnvironments("CartPole-v1", num_envs=8, num_workers=2)
    collector = WorkerCollector(envs, agent.actor(), 128, generators)
    collector.reset(list(range(8)))
    collector.start()
    rollout = collector.finish()
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
        self.pool = envs.pool
        self._weights = self.pool.share(list(actor.program.weights))
        self._fragments = None
        self._signature = None
        self._generations = [None] * self.pool.num_workers
        #: Workers that know the arrays of rollouts.
        self._knowing = set()

    def reset(self, seeds=None):
        """Starts new episodes in all environments; see `Collector.reset`."""
        prepared = [None] * self.pool.num_workers
        while prepared != self.pool.generations:
            # Also those that took the place of another while all were reset.
            for worker, generation in enumerate(self.pool.generations):
                if prepared[worker] != generation:
                    self._prepare(worker, self.pool.request)
                    prepared[worker] = self.pool.generations[worker]
            observations = self.envs.reset(seeds)
        self._generations = prepared
        self._begin_recording(observations)
        self._next_inputs = self._first_inputs(observations)

    def start(self):
        """Has the workers begin a rollout; call `finish` for it.

        Weights and `exploration` are taken as they are now.
        """
        self._check_order(starts=True)
        self._make_fragments()
        copy_into(self._weights.tree, self.actor.program.weights)
        self._weights.wrote()
        pool, lost = self.pool, {}
        for worker, own in enumerate(pool.slices):
            fragment = self._fragments[worker]
            copy_into(fragment.tree["exploration"], take(self.exploration, own))
            fragment.wrote(("exploration",))
            if self._generations[worker] != pool.generations[worker]:
                lost[worker] = None  # It was replaced since the last rollout.
                continue
            try:
                if worker not in self._knowing:
                    self._share_fragment(worker)
                pool.signal(worker, channel.COLLECT)
            except WorkerLost as error:
                lost[worker] = error
        self._running = lost
        pool.busy = True

    def finish(self):
        """Waits for the workers.

        Returns:
            A `kerasrl.rollouts.Rollout` of new arrays.
        """
        self._check_order(starts=False)
        pool, lost = self.pool, self._running
        pool.busy, self._running = False, None
        parts, infos, errors = {}, {}, []
        for worker in range(pool.num_workers):
            if worker in lost:
                continue
            try:
                infos[worker] = self._read_infos(pool.receive(worker))
                parts[worker] = read_fragment(self._fragments[worker].tree)
                pool.note_steps(worker, self.rollout_length)
            except WorkerLost as error:
                lost[worker] = error
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        restarted = {}
        for worker, reason in lost.items():
            parts[worker], reset_infos = self._replace(worker, reason)
            envs = range(pool.num_envs)[pool.slices[worker]]
            # Episode hooks are not told of fillers.
            infos[worker] = [[None] * len(envs)] * self.rollout_length
            restarted.update(zip(envs, reset_infos, strict=True))
        workers = range(pool.num_workers)
        rollout = join_rollouts(
            [parts[worker] for worker in workers],
            [pool.slices[worker].start for worker in workers],
        )
        rows = []
        if self._wanted_infos() is not None:
            each = [infos[worker] for worker in workers]
            rows = [sum(row, []) for row in zip(*each, strict=True)]
        self._next_inputs = copy.deepcopy(rollout.next_inputs)
        return self._record(rollout, rows, restarted)

    def _first_inputs(self, observations):
        num_envs = self.envs.num_envs
        return {
            "observations": observations,
            "previous_actions": spaces.zeros(
                spaces.emitted(self.envs.action_space), num_envs
            ),
            "previous_rewards": np.zeros(num_envs, np.float32),
            "episode_starts": np.ones(num_envs, bool),
        }

    def _wanted_infos(self):
        if self.listener is not None:
            return "all"
        return self.info_keys or None

    def _read_infos(self, steps):
        return None if steps is None else [channel.loads(infos) for infos in steps]

    def _prepare(self, worker, ask):
        """Sends a worker all that it needs to act.

        Args:
            worker: Integer, which one.
            ask: Method of the pool to send it with.
        """
        program = copy.copy(self.actor.program)
        # They lie in shared memory.
        program.weights = None
        shared_noise = any(spec.shared for spec in program.noise_specs)
        fields = {
            "program": program,
            "initial_state": self.actor.initial_state,
            "rollout_length": self.rollout_length,
            "generators": self.generators,
            "leader": self.generators[0] if shared_noise else None,
        }
        weights = self._weights
        ask(worker, "prepare_collecting", fields, weights.layout, shared=weights)
        self._knowing.discard(worker)

    def _make_fragments(self):
        """Makes the arrays of rollouts, when it is known what there is to say."""
        described = optree.tree_map(
            lambda array: (array.dtype, array.shape), self.exploration
        )
        signature = (repr(described), self._wanted_infos())
        if signature == self._signature:
            return
        self._fragments = [
            self.pool.share(
                fragment_example(
                    self.envs,
                    own.stop - own.start,
                    self.rollout_length,
                    self.actor,
                    take(self.exploration, own),
                )
            )
            for own in self.pool.slices
        ]
        self._signature = signature
        self._knowing.clear()

    def _share_fragment(self, worker):
        shared = self._fragments[worker]
        self.pool.attempt(
            worker,
            "share_fragment",
            shared.layout,
            self._wanted_infos(),
            shared=shared,
        )
        self._knowing.add(worker)

    def _replace(self, worker, reason):
        """Returns a rollout that is not valid, and the infos of the new episodes."""
        pool = self.pool
        own = pool.slices[worker]
        lost = self.generators[own]
        seeds = [0] * own.start + begin_generators_anew(lost)
        self.generators[own] = lost

        def prepare():
            self._prepare(worker, pool.attempt)
            self._share_fragment(worker)

        observations, infos = self._begin_anew(worker, reason, prepare, seeds)
        self._generations[worker] = pool.generations[worker]
        fragment = self._fragments[worker].tree
        before = take(self._next_inputs, own)
        state = self.actor.initial_state
        state = () if state is None else state
        return dropped_fragment(fragment, before, observations, state), infos
