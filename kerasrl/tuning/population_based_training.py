"""Population-based training."""

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kerasrl import checks
from kerasrl.tuning.decisions import Continue, Decision, Exploit, Pause
from kerasrl.tuning.perturbing import check_mutations, perturb
from kerasrl.tuning.schedulers import Measure, Scheduler
from kerasrl.tuning.trial import Trial


class PopulationBasedTraining(Scheduler):
    """Trials that do badly go on from those that do well, with settings near to theirs.

    Each time that a trial has trained for `interval`, it is compared with the latest
    such score of the others. If it is among the lowest `quantile_fraction`, it exploits
    one of the highest, drawn at random: it takes over its checkpoint (weights,
    optimizer, statistics of observations, counters) and all of its settings. Then it
    explores: those in `mutations` are perturbed, see `kerasrl.tuning.perturbing`. Those
    among the highest save a checkpoint for the others.

    With fewer slots than trials, those that train pause after each interval, and the
    one that has trained the least goes on.

    Paper: Jaderberg et al. (2017), https://arxiv.org/abs/1711.09846.

    Args:
        mutations: nested dict from settings to what they may become: a distribution to
            multiply and clip within, a list of values in order, or a function of a
            `numpy.random.Generator`, which has no range to clip to.
        interval: positive number in the units of `time_attr`.
        metric: str, name of a number in results.
        mode: `"max"` or `"min"`.
        time_attr: str, name of what results count time by. Counts of steps make
            schedules that can be repeated, clocks do not.
        burn_in: number in the units of `time_attr` before which nothing happens.
        quantile_fraction: number from 0 to 0.5; with 0, nobody exploits.
        resample_probability: number from 0 to 1, how often a value is drawn anew
            instead.
        factors: sequence of positive numbers, one of which a value is multiplied by.
        explore: None, or a function of the settings after perturbing that returns those
            to use.
        synchronous: whether all wait until everyone has trained for `interval`. The
            schedule is then the same whatever the number of slots, and after any
            restart.
        seed: integer from 0.

    Raises:
        ValueError, TypeError: for what cannot be meant, and for mutations of settings
            that a trained agent cannot change.

    Example:

    ```python
    scheduler = PopulationBasedTraining(
        {"learning_rate": loguniform(1e-5, 1e-2), "num_epochs": [1, 2, 5, 10]},
        interval=10_000,
    )
    ```
    """

    def __init__(
        self,
        mutations: dict[str, Any],
        interval: float,
        metric: str = "episode_return_mean",
        mode: str = "max",
        time_attr: str = "env_steps",
        burn_in: float = 0,
        quantile_fraction: float = 0.25,
        resample_probability: float = 0.25,
        factors: Sequence[float] = (1.2, 0.8),
        explore: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        synchronous: bool = False,
        seed: int = 0,
    ) -> None:
        self.mutations = check_mutations(mutations)
        self.interval = checks.positive("interval", interval, optional=False)
        self.measure = Measure(metric, mode, time_attr)
        self.burn_in = checks.positive("burn_in", burn_in, zero=True)
        if not checks.is_number(quantile_fraction) or not 0 <= quantile_fraction <= 0.5:
            raise ValueError(
                f"Received quantile_fraction={quantile_fraction!r}. Expected a number "
                "from 0 to 0.5: nobody is among the best and the worst."
            )
        self.quantile_fraction = float(quantile_fraction)
        self.resample_probability = checks.fraction(
            "resample_probability", resample_probability
        )
        if not len(factors):
            raise ValueError(f"Received factors={factors!r}. Expected one at least.")
        self.factors = tuple(
            checks.positive("factors", factor, optional=False) for factor in factors
        )
        self.explore = explore
        self.synchronous = checks.flag("synchronous", synchronous)
        self.seed = checks.natural("seed", seed)
        #: By names of trials. None is what JSON has for the score of what diverged.
        self.scores: dict[str, float | None] = {}
        self.perturbed: dict[str, float] = {}
        self.exploits: dict[str, int] = {}
        #: When all are compared next, and who then exploits whom on starting again.
        self.barrier = max(self.interval, self.burn_in)
        self.waiting: dict[str, dict[str, Any]] = {}

    def on_result(
        self, trial: Trial, result: dict[str, Any], trials: Sequence[Trial]
    ) -> Decision:
        now, score = self.measure.time(result), self.measure.score(trial, result)
        if self._is_to_exploit(trial):
            # It went on as it was: what it was to take over is gone.
            del self.waiting[trial.name]
        if self.synchronous:
            return Pause() if now >= self.barrier else Continue()
        due = max(self.burn_in, self.perturbed.get(trial.name, 0.0) + self.interval)
        if score is None or now < due:
            return Continue()
        self._keep_score(trial, score)
        lower, upper = self.quantiles(trials)
        if any(each is trial for each in lower):
            exploit = self._exploit(trial, upper)
            if exploit is None:
                # Nobody to learn from by now: the next result asks again.
                return Continue()
            donor = exploit.donor.name
            self.perturbed[trial.name] = self.perturbed.get(donor, now)
            return exploit
        self.perturbed[trial.name] = now
        others = (each for each in trials if each is not trial)
        if any(each.status in ("pending", "paused") for each in others):
            return Pause()
        return Continue(checkpoint=any(each is trial for each in upper))

    def quantiles(self, trials: Sequence[Trial]) -> tuple[list[Trial], list[Trial]]:
        """The trials that exploit, and those that are exploited, from worst to best.

        Args:
            trials: sequence of trials, of which those that have ended do not count, nor
                those without a score.

        Returns:
            two lists of `ceil(n * quantile_fraction)` trials each, of at most half of
            `n`; empty if fewer than two trials have a score.
        """
        scored = [x for x in trials if x.name in self.scores and not x.has_ended]
        scored.sort(key=self._score)
        size = math.ceil(len(scored) * self.quantile_fraction)
        size = min(size, len(scored) // 2)
        return (scored[:size], scored[-size:]) if size else ([], [])

    def choose(self, trials: Sequence[Trial]) -> Trial | None:
        ready = [each for each in trials if each.status in ("pending", "paused")]
        if self.synchronous:
            live = [each for each in trials if not each.has_ended]
            if live and all(map(self._has_arrived, live)):
                self._compare(live)
            # What they exploit is taken before it trains on.
            exploiting = [each for each in ready if self._is_to_exploit(each)]
            if exploiting:
                return exploiting[0]
            ready = [each for each in ready if not self._has_arrived(each)]
        return min(ready, key=self._time, default=None)

    def on_start(self, trial: Trial, trials: Sequence[Trial]) -> Decision:
        if not self._is_to_exploit(trial):
            return Continue()
        exploit = self.waiting[trial.name]
        donor = next((each for each in trials if each.name == exploit["donor"]), None)
        if donor is None or donor.checkpoint is None:
            del self.waiting[trial.name]
            return Continue()
        return Exploit(donor, exploit["settings"])

    def _is_to_exploit(self, trial: Trial) -> bool:
        """Whether a trial has not yet done what was decided.

        Its lineage says so, which is written with its checkpoint: whenever the launcher
        is killed, nothing is lost and nothing is done twice.
        """
        exploit = self.waiting.get(trial.name)
        return exploit is not None and exploit["lineage"] == len(trial.lineage)

    def _has_arrived(self, trial: Trial) -> bool:
        """Whether a trial has come to the barrier and can go on from there.

        A launcher may have been killed between its checkpoint and its pause.
        """
        is_there = trial.status == "paused" or is_saved(trial)
        return is_there and self._time(trial) >= self.barrier

    def _compare(self, trials: Sequence[Trial]) -> None:
        """Say who exploits whom, once all have come to the barrier."""
        for trial in trials:
            # A launcher may have been killed before it knew of a result.
            rows = reversed(trial.results)
            scores = (self.measure.score(trial, row) for row in rows)
            latest_score = next((each for each in scores if each is not None), None)
            if latest_score is not None:
                self._keep_score(trial, latest_score)
        lower, upper = self.quantiles(trials)
        for trial in lower:
            self._exploit(trial, upper)
        # An epoch may be longer than an interval.
        latest = max(map(self._time, trials))
        self.barrier = max(
            self.barrier + self.interval, math.nextafter(latest, math.inf)
        )

    def _exploit(self, trial: Trial, upper: Sequence[Trial]) -> Exploit | None:
        """Decide whom a trial exploits, and its settings then; None if nobody is."""
        able = [
            each
            for each in upper
            if has_own_checkpoint(each) and self._score(each) > -math.inf
        ]
        if not able:
            return None
        count = self.exploits.get(trial.name, 0)
        self.exploits[trial.name] = count + 1
        # Neither the order of results nor a restart changes what is drawn.
        name = zlib.crc32(trial.name.encode())
        rng = np.random.default_rng([self.seed, name, count])
        donor = able[int(rng.integers(len(able)))]
        settings = perturb(
            donor.settings,
            self.mutations,
            rng,
            self.resample_probability,
            self.factors,
        )
        if self.explore is not None:
            settings = self.explore(settings)
        self.waiting[trial.name] = {
            "donor": donor.name,
            "settings": settings,
            "lineage": len(trial.lineage),
        }
        return Exploit(donor, settings)

    def _keep_score(self, trial: Trial, score: float) -> None:
        self.scores[trial.name] = score if math.isfinite(score) else None

    def _score(self, trial: Trial) -> float:
        score = self.scores[trial.name]
        return -math.inf if score is None else score

    def _time(self, trial: Trial) -> float:
        return self.measure.time(trial.result) if trial.results else 0.0

    def get_state(self) -> dict[str, Any]:
        return {
            "scores": dict(self.scores),
            "perturbed": dict(self.perturbed),
            "exploits": dict(self.exploits),
            "barrier": self.barrier,
            "waiting": dict(self.waiting),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self.scores = dict(state["scores"])
        self.perturbed = dict(state["perturbed"])
        self.exploits = dict(state["exploits"])
        self.barrier = float(state["barrier"])
        self.waiting = dict(state["waiting"])


def has_own_checkpoint(trial: Trial) -> bool:
    """Whether a trial has saved what its present settings have made of it."""
    if trial.checkpoint is None:
        return False
    taken = trial.lineage[-1].get("taken") if trial.lineage else None
    return trial.checkpoint.name != taken


def is_saved(trial: Trial) -> bool:
    """Whether a trial that does not run goes on right after its latest result."""
    if trial.status != "pending" or trial.checkpoint is None or not trial.results:
        return False
    # What functions named, or where agents were saved.
    names = (
        trial.result.get("checkpoint"),
        f"checkpoint-{trial.result.get('iterations')}",
    )
    return trial.checkpoint.name in names
