"""Acting for one half of the environments while the other half is stepped."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import optree

from kerasrl.rollouts.collector import Collector
from kerasrl.workers.acting import HalfActor
from kerasrl.workers.environments import WorkerEnvironments
from kerasrl.workers.fragments import InfoKeeper, join_rollouts
from kerasrl.workers.recording import RecordedCollector


class AlternatingCollector(RecordedCollector):
    """Two halves of the workers: one steps while the learner acts for the other.

    For policies whose evaluation takes about as long as a step of the environments.
    Each half is a `kerasrl.rollouts.Collector` in a thread of its own, which waits for
    its workers without keeping the other from running. The order in which the halves
    run changes nothing; but the policy sees half as many rows at a time, which may
    round differently than with all of them.

    Args:
        envs: `WorkerEnvironments` with two or more workers.
        actor, rollout_length, generators, info_keys, listener, all_finals: As for
            `kerasrl.rollouts.Collector`. The listener is told of the steps of a rollout
            when it is over.

    Raises:
        ValueError: There is one worker only.

    Example:

    ```python
    envs = WorkerEnvironments("CartPole-v1", num_envs=8, num_workers=2)
    collector = AlternatingCollector(envs, agent.actor(), 128, generators)
    collector.reset(list(range(8)))
    rollout = collector.collect()
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
        pool = envs.pool
        if pool.num_workers < 2:
            raise ValueError(
                "worker_mode='alternate' needs two halves. Received: num_workers=1. "
                "Use two or more workers, or worker_mode='step'."
            )
        middle = pool.num_workers // 2
        self._keepers, self._halves, self._slices = [], [], []
        for workers in (range(middle), range(middle, pool.num_workers)):
            keeper = InfoKeeper(WorkerEnvironments(pool=pool, workers=workers))
            own = slice(pool.slices[workers[0]].start, pool.slices[workers[-1]].stop)
            self._keepers.append(keeper)
            self._slices.append(own)
            leader = None
            if own.start and any(spec.shared for spec in actor.noise_specs):
                leader = copy.deepcopy(generators[0])
            self._halves.append(
                Collector(
                    keeper,
                    HalfActor(actor, leader),
                    rollout_length,
                    generators[own],
                    all_finals=True,
                )
            )
        self._executor = ThreadPoolExecutor(2, "kerasrl-half")

    def reset(self, seeds=None):
        """Starts new episodes in all environments; see `Collector.reset`."""
        rows = []
        for keeper in self._keepers:
            keeper.drain()  # Of a rollout that ended with an error.
        for own, half in zip(self._slices, self._halves, strict=True):
            half.reset(None if seeds is None else seeds[own])
            rows.append(half.observations)
        self._begin_recording(
            optree.tree_map(lambda *leaves: np.concatenate(leaves), *rows)
        )

    def start(self):
        """Has both halves begin a rollout; call `finish` for it."""
        self._check_order(starts=True)
        keys = "all" if self.listener is not None else self.info_keys or None
        self._running = []
        for own, keeper, half in zip(
            self._slices, self._keepers, self._halves, strict=True
        ):
            keeper.keys = keys
            half.exploration = optree.tree_map(
                lambda array, own=own: array[own], self.exploration
            )
            self._running.append(self._executor.submit(half.collect))

    def finish(self):
        """Waits for both halves.

        Returns:
            A `kerasrl.rollouts.Rollout` of new arrays.
        """
        self._check_order(starts=False)
        running, self._running = self._running, None
        # Both are waited for, also if one fails: their workers must be at rest.
        errors = [future.exception() for future in running]
        for error in filter(None, errors):
            raise error
        rollout = join_rollouts(
            [future.result() for future in running],
            [own.start for own in self._slices],
        )
        infos = [keeper.drain() for keeper in self._keepers]
        rows = []
        if infos[0] is not None:
            rows = [sum(row, []) for row in zip(*infos, strict=True)]
        for half in self._halves:
            half.drain_episodes()
        return self._record(rollout, rows, {})
