"""A launcher without processes, which can be killed after any result."""

import copy
import json
from pathlib import Path

from kerasrl.tuning import Continue, Exploit, Pause, Stop, Trial


def make_trials(settings):
    return [
        Trial(
            f"toy_{number:05d}",
            run="toy:train",
            env=None,
            stop={},
            settings=each,
            seed=0,
            directory=Path("toy") / str(number),
            number=number,
        )
        for number, each in enumerate(settings)
    ]


class FakeRunner:
    """Trials whose state is a dict that `step(state, settings)` changes.

    `step` returns a result; a trial is finished when its "env_steps" reach `end`.
    """

    def __init__(self, settings, scheduler, step, end, slots=100, start=None):
        self.trials = make_trials(settings)
        self.scheduler = scheduler
        self.step = step
        self.end = end
        self.slots = slots
        self.first = start or {"env_steps": 0}
        self.states = {}
        self.saved = {}
        self.events = []

    def run(self, most=None, late=False):
        """Run until all is done, or for a number of results; then as after a kill.

        With `late`, the launcher is killed before it saw that a trial has paused.
        """
        count, last = 0, None
        while True:
            self.fill()
            running = [each for each in self.trials if each.status == "running"]
            if not running:
                assert all(each.has_ended for each in self.trials), "nobody goes on"
                return self
            for trial in running:
                if count == most:
                    return self.kill(last if late else None)
                count += 1
                self.advance(trial)
                last = trial

    def fill(self):
        while sum(each.status == "running" for each in self.trials) < self.slots:
            trial = self.scheduler.choose(self.trials)
            if trial is None:
                return
            assert trial.status in ("pending", "paused")
            decision = self.scheduler.on_start(trial, self.trials)
            if isinstance(decision, Exploit):
                self.take_over(trial, decision)
            saved = self.saved.get(trial.checkpoint, self.first)
            self.states[trial.name] = copy.deepcopy(saved)
            trial.status = "running"

    def advance(self, trial):
        state = self.states[trial.name]
        result = self.step(state, trial.settings)
        trial.results.append(result)
        if result["env_steps"] >= self.end:
            self.finish(trial, "finished")
            return
        decision = self.scheduler.on_result(trial, result, self.trials)
        self.events.append((trial.name, result["env_steps"], type(decision).__name__))
        if isinstance(decision, Stop):
            self.finish(trial, "stopped")
        elif isinstance(decision, Pause):
            self.save(trial)
            trial.status = "paused"
        elif isinstance(decision, Exploit):
            self.take_over(trial, decision)
            self.states[trial.name] = copy.deepcopy(self.saved[trial.checkpoint])
        elif decision == Continue(checkpoint=True):
            self.save(trial)

    def finish(self, trial, status):
        trial.status = status
        self.scheduler.on_end(trial, self.trials)

    def save(self, trial):
        state = self.states[trial.name]
        trial.checkpoint = Path(f"{trial.name}-{len(trial.results)}")
        self.saved[trial.checkpoint] = copy.deepcopy(state)
        trial.result["checkpoint"] = trial.checkpoint.name

    def take_over(self, trial, exploit):
        donor = exploit.donor
        taken = f"{trial.name}-{len(trial.results)}-taken"
        trial.lineage.append(
            {
                "taken": taken,
                "donor": donor.name,
                "rows": len(trial.results),
                "settings": exploit.settings,
                "donor_env_steps": self.saved[donor.checkpoint]["env_steps"],
            }
        )
        trial.settings = exploit.settings
        trial.checkpoint = Path(taken)
        self.saved[trial.checkpoint] = copy.deepcopy(self.saved[donor.checkpoint])

    def kill(self, unseen):
        """What is on disk stays: trials go on from their checkpoints."""
        for trial in self.trials:
            if trial is unseen and trial.status == "paused":
                trial.status = "running"
            if trial.status != "running":
                continue
            saved = self.saved.get(trial.checkpoint, self.first)
            kept = trial.lineage[-1]["rows"] if trial.lineage else 0
            while (
                len(trial.results) > kept
                and trial.results[-1]["env_steps"] > saved["env_steps"]
            ):
                trial.results.pop()
            trial.status = "pending"
        self.states.clear()
        return self

    def resume(self, scheduler):
        """Another launcher, which knows what the former wrote."""
        scheduler.set_state(json.loads(json.dumps(self.scheduler.get_state())))
        self.scheduler = scheduler
        return self

    def schedule(self):
        return {each.name: each.lineage for each in self.trials}
