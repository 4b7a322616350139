"""What is the same for all collectors that put rollouts together from parts."""

from typing import Any

import numpy as np
import optree

from kerasrl.envs.environments import EnvStep
from kerasrl.rollouts.collector import Collector, info_arrays
from kerasrl.rollouts.episodes import RunningEpisodes
from kerasrl.rollouts.rollout import take
from kerasrl.workers import channel
from kerasrl.workers.fragments import truncated_only
from kerasrl.workers.pool import WorkerLost


class RecordedCollector(Collector):
    """A collector that learns of whole rollouts only once they are over.

    Episode hooks are called then, with the same episodes as while acting. They come
    too late to change the environments in the middle of a rollout.
    """

    _running = None
    #: The `WorkerPool` that acts.
    pool: Any = None

    def start(self):
        """Begins a rollout, for `finish`; what happens between them is free time."""
        raise NotImplementedError(f"{type(self).__name__} must define start().")

    def finish(self):
        """Returns the `Rollout` that `start` began."""
        raise NotImplementedError(f"{type(self).__name__} must define finish().")

    def collect(self):
        self.start()
        return self.finish()

    def _begin_recording(self, observations):
        """Notes that all environments were just reset."""
        envs = self.envs
        self._observations = observations
        self._previous_actions = None
        self._running_episodes = RunningEpisodes(envs.num_envs)
        self._tracker = None

    def _check_order(self, starts):
        if self._observations is None:
            raise RuntimeError("Call `reset` before the first `collect`.")
        if starts is not (self._running is None):
            raise RuntimeError("Call `start`, then `finish`, and so on in turn.")

    def _begin_anew(self, worker, reason, prepare, seeds):
        """Has a worker begin new episodes, in the place of one that was lost.

        Args:
            worker: Integer, which one of `pool`.
            reason: `WorkerLost`; `None` if it has been replaced already.
            prepare: Function that tells it all that it needs to act.
            seeds: List of integers, of all environments up to its last.

        Returns:
            Tuple of its first observations, and a list of what its resets said, of
            empty dicts if nobody listens.
        """
        pool, own = self.pool, self.pool.slices[worker]
        infos = [{}] * (own.stop - own.start)
        while True:
            if reason is not None:
                pool.replace(worker, reason)
            try:
                prepare()
                observations = pool.attempt(worker, "reset", seeds)
                if self.listener is not None:
                    infos = channel.loads(pool.attempt(worker, "reset_infos"))
            except WorkerLost as error:
                reason = error
            else:
                return observations, infos

    def _record(self, rollout, infos, restarted):
        """Does what depends on the whole rollout.

        Args:
            rollout: `Rollout` of all environments, `final` for every end.
            infos: List of T lists of B dicts, empty if no one wants them.
            restarted: Dict from environments that a lost worker had to their new
                `reset_info`.

        Returns:
            The `Rollout` to hand out.
        """
        tracker = self._start_tracking()
        if tracker is not None:
            self._replay(tracker, rollout, infos)
            for env, info in restarted.items():
                observation = take(rollout.next_inputs["observations"], env)
                tracker.begin(env, observation, info)
        if self.info_keys:
            # Fillers of a lost worker say nothing.
            infos = [[info or {} for info in row] for row in infos]
            rollout.infos = info_arrays(self.info_keys, infos)
        if not self.all_finals:
            rollout = truncated_only(rollout)
        self._finish_episodes(rollout, tracker)
        self.env_steps += rollout.num_steps
        self._observations = optree.tree_map(
            np.array, rollout.next_inputs["observations"]
        )
        return rollout

    def _replay(self, tracker, rollout, infos):
        """Tells the listener of a rollout, step by step."""
        length = len(rollout.rewards)
        finals = [{} for _ in range(length)]
        if rollout.final is not None:
            times, envs = rollout.final["time"], rollout.final["env"]
            for row, (time, env) in enumerate(
                zip(times.tolist(), envs.tolist(), strict=True)
            ):
                finals[time][env] = take(rollout.final["observations"], row)
        for time in range(length):
            if time + 1 < length:
                observations = take(rollout.observations, time + 1)
            else:
                observations = rollout.next_inputs["observations"]
            step = EnvStep(
                observations,
                rollout.rewards[time],
                rollout.terminated[time],
                rollout.truncated[time],
                rollout.valid[time],
                finals[time],
                True,
                infos[time],
            )
            tracker.step(time, step, take(rollout.actions, time))
