"""Running trials: as many at once as there are slots for, until all have ended."""

import logging
import math
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kerasrl.display import count, number
from kerasrl.tuning import decisions, processes
from kerasrl.tuning.decisions import Continue, Decision, Exploit
from kerasrl.tuning.planning import needs_of
from kerasrl.tuning.processes import TrialProcess, end_all, log_tail
from kerasrl.tuning.results import METRIC, latest
from kerasrl.tuning.schedulers import Scheduler
from kerasrl.tuning.slots import Slots
from kerasrl.tuning.stopping import signals_as_exceptions
from kerasrl.tuning.taking_over import take_over
from kerasrl.tuning.trial import (
    WAITING,
    Trial,
    append_line,
    read_json,
    read_results,
    write_json,
)

_logger = logging.getLogger(__name__)
#: Seconds between two looks at processes, which say nothing when they are killed.
_PERIOD = 0.1
#: Seconds that trials have to end when the launcher is interrupted.
_GRACE = 5.0
#: Seconds that a trial has to save a checkpoint that others wait for.
_SAVING = 600.0
_ANSWERS = {
    decisions.Stop: "stop",
    decisions.Pause: "pause",
    decisions.Exploit: "exploit",
}
#: Crashes of a trial that are followed by another attempt, where nothing is said.
RETRIES = 1
LINEAGE = "pbt.jsonl"
SCHEDULER = "scheduler.json"


class Runner:
    """Runs trials in processes, and does what a scheduler and a searcher say.

    Args:
        trials: list of `Trial`, in the order in which they start. Those that `more`
            returns are added to it.
        root: path of the directory for what concerns all of them.
        slots: `Slots`.
        scheduler: `Scheduler` or None.
        search: searcher or None, told of results and ends.
        more: function of whether a trial waits, which returns further trials; or None.
        is_awaited: function of whether `more` may return trials later though nothing
            runs, or None.
        retries: int or None, how many crashes of a trial are followed by another
            attempt. None: what its experiment says, or 1.
        metric: str, the result that texts for the user have.
        say: function of a text for the user.
        on_change: function without arguments, called when a trial's status changed.
        on_tick: function without arguments, called several times a second.
    """

    def __init__(
        self,
        trials: list[Trial],
        root: Path,
        slots: Slots,
        *,
        scheduler: Scheduler | None = None,
        search: Any = None,
        more: Callable[[bool], list[Trial]] | None = None,
        is_awaited: Callable[[], bool] | None = None,
        retries: int | None = None,
        metric: str = METRIC,
        say: Callable[[str], None],
        on_change: Callable[[], Any],
        on_tick: Callable[[], None],
    ) -> None:
        self.trials = trials
        self.root = root
        self.slots = slots
        self.decides = scheduler is not None or search is not None
        self.scheduler = scheduler or Scheduler()
        self.search = search
        self.more = more or (lambda waits: [])
        self.is_awaited = is_awaited or (lambda: False)
        self.retries = retries
        self.metric = metric
        self.say = say
        self.on_change = on_change
        self.on_tick = on_tick
        self.running: list[TrialProcess] = []
        self._reasons: dict[str, str] = {}

    def run(self) -> None:
        """Run all trials to their ends.

        Raises:
            KeyboardInterrupt, SystemExit: when the launcher is interrupted or
                terminated; all processes of trials have ended by then.
        """
        self._load_scheduler()
        with signals_as_exceptions():
            try:
                while True:
                    waits = any(each.status in WAITING for each in self.trials)
                    self.trials += self.more(waits)
                    self._start()
                    if not self.running and not self.is_awaited():
                        break
                    self._wait()
                    for process in list(self.running):
                        self._serve(process)
                    self.on_tick()
            finally:
                self._end()
        waiting = [each.name for each in self.trials if not each.has_ended]
        if waiting:
            raise RuntimeError(
                f"{len(waiting)} trials wait and the scheduler "
                f"({type(self.scheduler).__name__}) chooses none of them: "
                f"{', '.join(waiting[:5])}."
            )

    def _start(self) -> None:
        """Start trials as long as there are slots for them."""
        while True:
            trial = self.scheduler.choose(self.trials)
            while trial is None:
                found = self.more(False)
                if not found:
                    return
                self.trials += found
                trial = self.scheduler.choose(self.trials)
            slot = self.slots.take(needs_of(trial))
            if slot is None:
                return
            try:
                decision = self.scheduler.on_start(trial, self.trials)
                # Before anything is done about it: it is not decided twice then.
                self._save_scheduler()
                if isinstance(decision, Exploit):
                    self._exploit(trial, decision)
                trial.status = "running"
                trial.save()
                process = TrialProcess(trial, slot, self.decides)
            except BaseException:
                self.slots.give_back(slot)
                raise
            self.running.append(process)
            self._save_scheduler()
            self.on_change()

    def _wait(self) -> None:
        """Wait until a process says something, or for a moment."""
        reading = [each.reading for each in self.running if not each.is_silent]
        if not reading:
            time.sleep(_PERIOD / 2)
            return
        select.select(reading, [], [], _PERIOD)

    def _serve(self, process: TrialProcess) -> None:
        # In this order: nothing is said by a process that is over.
        is_over = process.has_exited()
        for message in process.messages():
            self._receive(process, message)
        if is_over:
            code = process.close()
            self.running.remove(process)
            self.slots.give_back(process.slot)
            self._settle(process, code)

    def _receive(self, process: TrialProcess, message: dict[str, Any]) -> None:
        keep(process.trial, message)
        if message["kind"] == "result" and self.decides:
            self._decide(process, message["result"])

    def _decide(self, process: TrialProcess, result: dict[str, Any]) -> None:
        trial = process.trial
        decision = self.scheduler.on_result(trial, result, self.trials)
        if isinstance(decision, Continue) and self.search is not None:
            found = self.search.on_result(trial, result)
            if not isinstance(found, Continue):
                decision = found
        self._save_scheduler()
        if isinstance(decision, Exploit) and not self._exploit(trial, decision):
            decision = Continue()
        if isinstance(decision, decisions.Stop):
            self._reasons[trial.name] = decision.reason
        process.answer(answer_of(decision))
        if isinstance(decision, Continue) and decision.checkpoint:
            self._await_checkpoint(process)

    def _await_checkpoint(self, process: TrialProcess) -> None:
        """Wait for a checkpoint that was asked for: others may go on from it next."""
        deadline = time.monotonic() + _SAVING
        while time.monotonic() < deadline and not process.has_exited():
            select.select([process.reading], [], [], _PERIOD)
            for message in process.messages():
                self._receive(process, message)
                if message["kind"] == "checkpoint":
                    return

    def _exploit(self, trial: Trial, decision: Exploit) -> bool:
        """Have a trial that does not train just now go on as another one.

        Returns:
            Whether it does: not if the other one has no checkpoint.
        """
        donor = decision.donor
        if donor.checkpoint is None or not donor.checkpoint.exists():
            _logger.warning(
                "%s does not go on from %s, which has no checkpoint.",
                *(trial.name, donor.name),
            )
            return False
        try:
            entry = take_over(trial, donor, decision.settings)
        except FileNotFoundError:
            # It was so old that its owner has removed it just now.
            return False
        append_line(self.root / LINEAGE, entry)
        self.say(f"{trial.name} goes on from {donor.name}.")
        return True

    def _settle(self, process: TrialProcess, code: int) -> None:
        """Say what became of a trial whose process is over."""
        trial, end = process.trial, process.end or {}
        status = end.get("status")
        seconds = time.monotonic() - process.started
        if status in ("finished", "stopped"):
            trial.status, trial.error = status, ""
            reason = self._reasons.pop(trial.name, "") or end.get("reason", "")
            reason = reason and f": {reason}"
            self.say(f"{trial.name} {status}{self._outcome(trial)}{reason}.")
        elif status in ("paused", "exploit"):
            trial.status = "paused"
        elif status == "refused":
            self._fail(trial, end.get("reason", ""))
        else:
            trial.attempts += 1
            how = f"exit code {code}" if code >= 0 else f"signal {-code}"
            if trial.attempts <= self._retries(trial):
                trial.status = "pending"
                where = "its start"
                if trial.checkpoint is not None:
                    where = trial.checkpoint.name
                self.say(
                    f"{trial.name} crashed after {seconds:.0f} s ({how}), and goes on "
                    f"from {where}: attempt {trial.attempts + 1}."
                )
            else:
                self._fail(trial, f"{how} in attempt {trial.attempts}")
        trial.save()
        if trial.has_ended:
            self.scheduler.on_end(trial, self.trials)
            if self.search is not None:
                self.search.on_end(trial)
        self._save_scheduler()
        self.on_change()

    def _retries(self, trial: Trial) -> int:
        if self.retries is not None:
            return self.retries
        return int(trial.options.get("max_failures", RETRIES))

    def _outcome(self, trial: Trial) -> str:
        steps = trial.result.get("env_steps")
        after = "" if steps is None else f" after {count(steps)} steps"
        value = latest(trial, self.metric)
        return after if math.isnan(value) else f"{after}, {self.metric} {number(value)}"

    def _fail(self, trial: Trial, reason: str) -> None:
        trial.status = "failed"
        tail = log_tail(trial.directory)
        trial.error = f"{reason}\n{tail}".strip()
        log = trial.directory / processes.LOG
        shown = "".join(f"    {line}\n" for line in tail.splitlines())
        self.say(f"{trial.name} failed: {reason}. The end of {log}:\n{shown}".rstrip())

    def _end(self) -> None:
        """End processes that still run; their trials go on another time."""
        running, self.running = self.running, []
        if not running:
            return
        try:
            end_all(running, _GRACE)
        finally:
            # Also where the user is too impatient for that.
            for process in running:
                process.signal(signal.SIGKILL)
                for message in process.messages():
                    keep(process.trial, message)
                process.close()
                status = (process.end or {}).get("status", "")
                is_over = status in ("finished", "stopped")
                process.trial.status = status if is_over else "pending"
                process.trial.save()
            self.on_change()

    def _load_scheduler(self) -> None:
        path = self.root / SCHEDULER
        if self.decides and path.exists():
            self.scheduler.set_state(read_json(path))

    def _save_scheduler(self) -> None:
        state = self.scheduler.get_state()
        if state:
            write_json(self.root / SCHEDULER, state)


def keep(trial: Trial, message: dict[str, Any]) -> None:
    """Have a trial know what its process has said."""
    if message["kind"] == "start":
        # Those that are later than its checkpoint are removed.
        trial.results = read_results(trial.directory)[: message["rows"]]
    elif message["kind"] == "result":
        trial.results.append(message["result"])
    elif message["kind"] == "checkpoint" and message["name"] is not None:
        trial.checkpoint = trial.directory / message["name"]
        trial.save()


def answer_of(decision: Decision) -> str:
    """How a trial's process is told of a decision."""
    if isinstance(decision, Continue):
        return "checkpoint" if decision.checkpoint else "continue"
    return _ANSWERS[type(decision)]
