"""Environments that live in worker processes."""

from functools import partial

import numpy as np
import optree

from kerasrl import spaces
from kerasrl.envs.environments import Environments, EnvStep
from kerasrl.rollouts.rollout import take
from kerasrl.workers import channel
from kerasrl.workers.pool import WorkerLost, WorkerPool
from kerasrl.workers.shared_arrays import copy_into


class WorkerEnvironments(Environments):
    """B environments in N worker processes, stepped together from here.

    A step costs two single bytes per worker; actions, observations, rewards and ends
    lie in shared memory. A worker that is lost is replaced: the step in which that
    happens is a filler for its environments (`valid` False), and their next
    observations are the first of new episodes.

    Args:
        env, num_envs, env_config: As for `kerasrl.envs.make_envs`.
        num_workers: Integer, N.
        env_timeout: As for `WorkerPool`.
        worker_mode: One of `kerasrl.workers.MODES`, or `None`. Only
            `make_collector` looks at it.
        cluster: As for `WorkerPool`.
        pool: `None`, or a `WorkerPool` that is there already; then this object is for
            `workers` only, and does not close it.
        workers: List of indices of workers next to each other, `None` for all.

    Attributes:
        pool: The `WorkerPool`.

    Example:

    ```python
    with WorkerEnvironments("CartPole-v1", num_envs=8, num_workers=2) as envs:
        envs.reset(list(range(8)))
        envs.step(np.zeros(8, int)).rewards
    ```
    """

    def __init__(
        self,
        env=None,
        num_envs=None,
        env_config=None,
        num_workers=1,
        env_timeout=None,
        worker_mode=None,
        cluster=None,
        pool=None,
        workers=None,
    ):
        self._owned = pool is None
        if pool is None:
            pool = WorkerPool(
                env, num_workers, num_envs, env_config, env_timeout, cluster
            )
        self.pool = pool
        self.worker_mode = worker_mode
        self.workers = list(range(pool.num_workers) if workers is None else workers)
        self._first = pool.slices[self.workers[0]].start
        #: Slices of the workers among the environments of this object.
        self.slices = [
            slice(pool.slices[w].start - self._first, pool.slices[w].stop - self._first)
            for w in self.workers
        ]
        description = self._common_description()
        super().__init__(
            self.slices[-1].stop,
            description["observation_space"],
            description["action_space"],
            description["name"],
        )
        self.resets_on_next_step = description["resets_on_next_step"]
        self.first_index, self.num_envs_of_run = self._first, pool.num_envs
        self._shared = None
        #: Generations of the workers whose environments were reset, and of those that
        #: know the arrays for single steps.
        self._begun = None
        self._ready = None
        self._seeds = None
        self._num_steps = 0

    @property
    def reset_infos(self):
        """The infos of the last `reset`, asked for when somebody wants to know."""
        return self._read_infos(self._request("reset_infos"))

    @reset_infos.setter
    def reset_infos(self, infos):
        """Workers keep them."""

    def reset(self, seeds=None):
        if seeds is not None:
            seeds = self._check_seeds(seeds)
            # Workers count environments from the first of all.
            seeds = [None] * self._first + seeds
        rows = self._request("reset", seeds)
        self._begun = self.generations
        self._seeds = np.random.default_rng(None if seeds is None else seeds[-1])
        return optree.tree_map(lambda *leaves: np.concatenate(leaves), *rows)

    @property
    def generations(self):
        """How often each of the workers has been replaced."""
        generations = self.pool.generations
        return [generations[worker] for worker in self.workers]

    def step(self, actions, out=None):
        if out is None:
            out = self._empty_observations()
        lost = {}
        if self.generations != self._ready:
            lost = self._make_ready()
        exchange, pool = self._exchange, self.pool
        copy_into(exchange["actions"], actions)
        self._shared.wrote(("actions",))
        self._num_steps += 1
        for worker in self.workers:
            if worker not in lost:
                try:
                    pool.signal(worker, channel.STEP)
                except WorkerLost as error:
                    lost[worker] = error
        errors = []
        for worker in self.workers:
            if worker not in lost:
                try:
                    pool.receive(worker)
                    pool.note_steps(worker, 1)
                except WorkerLost as error:
                    lost[worker] = error
                except Exception as error:
                    errors.append(error)
        if errors:
            raise errors[0]
        for worker, reason in lost.items():
            self._replace(worker, reason)
        copy_into(out, exchange["observations"])
        return self._gather(exchange, out)

    def set_origins(self, origins):
        self._request("set_origins", origins)
        self.pool.remember("set_origins", "set_origins", origins)

    def foreach(self, function):
        return sum(self._request("foreach_env", function), [])

    def call(self, name, *args, **kwargs):
        results = sum(self._request("call", name, args, kwargs), [])
        # For workers that replace others: curricula tell their phase only once.
        self.pool.remember(("call", name), "call", name, args, kwargs)
        return results

    def goal_function(self, name):
        ask = partial(self.pool.request, self.workers[0], "ask_goals", name)
        return ask if ask() else None

    def set_attr(self, name, value):
        self._request("set_attr", name, value)
        self.pool.remember(("set_attr", name), "set_attr", name, value)

    def render(self):
        return sum(self._request("render"), [])

    def close(self):
        if self._shared is not None:
            self._shared.close()
        if self._owned:
            self.pool.close()

    def _request(self, name, *arguments):
        return self.pool.request_all(name, *arguments, workers=self.workers)

    def _common_description(self):
        first, *others = (self.pool.descriptions[worker] for worker in self.workers)
        for worker, other in zip(self.workers[1:], others, strict=True):
            for name in ("observation_space", "action_space"):
                if other[name] != first[name]:
                    if self._owned:
                        self.pool.close()
                    raise ValueError(
                        f"All environments must have the same `{name}`. Received: "
                        f"{first[name]} and, from worker {worker + 1}, {other[name]}."
                    )
        return first

    # Single steps -------------------------------------------------------------

    def _make_ready(self):
        """Makes the arrays for single steps; says where they are to who needs to know.

        Returns:
            Dict from workers that cannot take a step to the `WorkerLost` of it, or to
            `None` if another one has been put in its place already.
        """
        pool = self.pool
        if self._begun is None:
            raise RuntimeError("Call `reset` before the first `step`.")
        if self._shared is None:
            count = pool.num_envs
            observations = spaces.zeros(self.observation_space, count)
            flags = np.zeros(count, bool)
            self._shared = pool.share(
                {
                    "actions": spaces.zeros(spaces.emitted(self.action_space), count),
                    "observations": observations,
                    "final_observations": observations,
                    "rewards": np.zeros(count, np.float32),
                    "terminated": flags,
                    "truncated": flags,
                    "valid": flags,
                    "ended": flags,
                }
            )
            own = slice(self._first, self._first + self.num_envs)
            self._exchange = take(self._shared.tree, own)
        if self._ready is None:
            self._ready = [None] * len(self.workers)
        lost, generations = {}, self.generations
        for place, worker in enumerate(self.workers):
            if generations[place] != self._begun[place]:
                lost[worker] = None
            elif generations[place] != self._ready[place]:
                try:
                    self._share_with(worker)
                    self._ready[place] = generations[place]
                except WorkerLost as error:
                    lost[worker] = error
        return lost

    def _share_with(self, worker):
        shared = self._shared
        self.pool.attempt(worker, "share_steps", shared.layout, shared=shared)

    def _replace(self, worker, reason):
        """Starts new episodes in a new worker; the step becomes a filler."""
        pool = self.pool
        own = pool.slices[worker]
        seeds = self._seeds.integers(2**31, size=pool.num_envs).tolist()
        while True:
            if reason is not None:
                pool.replace(worker, reason)
            try:
                observations = pool.attempt(worker, "reset", seeds)
                self._share_with(worker)
                break
            except WorkerLost as error:
                reason = error
        rows = take(self._shared.tree, own)
        copy_into(rows["observations"], observations)
        rows["rewards"][:] = 0.0
        rows["terminated"][:] = False
        rows["truncated"][:] = True
        rows["valid"][:] = False
        rows["ended"][:] = True
        place = self.workers.index(worker)
        self._begun[place] = self._ready[place] = pool.generations[worker]

    def _gather(self, rows, out):
        rewards = rows["rewards"].copy()
        ended, stamp = rows["ended"], self._num_steps
        no = self._no_ends
        if not ended.any():
            return EnvStep(
                out,
                rewards,
                no,
                no,
                self._all_valid,
                {},
                False,
                lambda: self._fetch_infos(stamp),
            )
        # Where nothing ended, a worker leaves what was there before.
        terminated = rows["terminated"] & ended
        truncated = rows["truncated"] & ended
        valid = rows["valid"] | ~ended
        finals = {
            index: optree.tree_map(np.array, take(rows["final_observations"], index))
            for index in np.flatnonzero((terminated | truncated) & valid).tolist()
        }
        return EnvStep(
            out,
            rewards,
            terminated,
            truncated,
            valid,
            finals,
            True,
            lambda: self._fetch_infos(stamp),
        )

    def _fetch_infos(self, stamp):
        if stamp != self._num_steps:
            raise RuntimeError(
                "The infos of a step in worker processes are gone with the next step. "
                "Ask for them before."
            )
        return self._read_infos(self._request("infos"))

    def _read_infos(self, parts):
        return sum(map(channel.loads, parts), [])
