"""Episodes of a population, played in this process or shared out among workers."""

from kerasrl.actors.population import PopulationProgram
from kerasrl.rollouts.playing import PopulationPlayer
from kerasrl.rollouts.population import put_together
from kerasrl.workers.environments import WorkerEnvironments


def make_player(envs, program, own, is_stacked, listener=None, **options):
    """Makes what plays the episodes of populations.

    Args:
        envs: `kerasrl.envs.Environments`.
        program: `kerasrl.actors.Program` without noise.
        own, is_stacked: As for `kerasrl.actors.population.PopulationProgram`.
        listener: As for `kerasrl.rollouts.Collector`.
        **options: As for `kerasrl.rollouts.playing.PopulationPlayer`.

    Returns:
        An object with `play(population, weights, tasks)`.

    Raises:
        ValueError: Workers cannot do what is asked for.

    Example:

    ```python
    player = make_player(envs, actor.program, [0, 1], True, initial_state=())
    player.play(population, actor.program.weights, [0, 1, 2])["returns"]
    ```
    """
    if not isinstance(envs, WorkerEnvironments):
        return LocalPopulation(envs, program, own, is_stacked, listener, options)
    if envs.worker_mode not in (None, "act"):
        raise ValueError(
            f'Received worker_mode="{envs.worker_mode}". Each episode is acted by '
            'weights of its own, in the worker that steps it: leave it at "act".'
        )
    if listener is not None:
        raise ValueError(
            "Received a callback with on_episode_begin, on_episode_step or "
            "on_episode_end, and num_workers > 0. Workers play whole populations, and "
            "send returns only: use num_workers=0, or leave that callback out."
        )
    return WorkerPopulation(envs, program, own, is_stacked, options)


class LocalPopulation:
    """Plays in environments of this process.

    Args:
        envs, program, own, is_stacked, listener: As for `make_player`.
        options: Dict, its `**options`.
    """

    def __init__(self, envs, program, own, is_stacked, listener, options):
        self._actor = PopulationProgram(program, own, envs.num_envs, is_stacked)
        options = {**options, "listener": listener}
        self._player = PopulationPlayer(envs, self._actor, **options)

    def play(self, population, weights, tasks):
        """Plays episodes.

        Args:
            population: `kerasrl.rollouts.population.Population`.
            weights: List of arrays, the present weights of the program.
            tasks: List of integers, numbers of episodes.

        Returns:
            Dict, see `kerasrl.rollouts.playing.PopulationPlayer`.
        """
        self._actor.share(weights)
        return self._player.play(population, tasks)


class WorkerPopulation:
    """Shares episodes out among workers, which send what came of them.

    Only numbers of episodes and their returns travel: a worker makes the directions by
    itself. The episodes of a worker that is lost are played by the one that replaces
    it, with the same outcome.

    Args:
        envs: `WorkerEnvironments`.
        program, own, is_stacked, options: As for `LocalPopulation`.
    """

    def __init__(self, envs, program, own, is_stacked, options):
        self._pool = envs.pool
        envs.pool.when_replaced = "It plays the same episodes, to the same end."
        fields = {
            "program": program,
            "own": own,
            "is_stacked": is_stacked,
            "options": options,
        }
        self._pool.request_all("prepare_population", fields)
        self._pool.remember("population", "prepare_population", fields)

    def play(self, population, weights, tasks):
        """Plays episodes; see `LocalPopulation.play`."""
        pool = self._pool
        parts = pool.request_all("play_population", population, weights, tasks)
        for worker, part in enumerate(parts):
            own = pool.slices[worker]
            steps = int(part["lengths"].sum()) // (own.stop - own.start)
            pool.note_steps(worker, steps)
        return put_together(parts)
