"""The progress bar of `kerasrl train`."""

import math
import sys
from typing import Any

import click


def make_progress_bar(steps: int) -> Any:
    """One bar over the whole run, where Keras's has one for every epoch."""
    import keras

    from kerasrl.callbacks import Callback

    shown = {
        "episode_return_mean": "return",
        "evaluation_return_mean": "evaluation",
        "loss": "loss",
        "steps_per_second": "steps/s",
    }

    class ProgressBar(Callback):
        chief_only = True

        def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
            self.start = self.agent.env_steps
            self.bar = keras.utils.Progbar(
                steps, stateful_metrics=list(shown.values()), interval=0.1
            )
            self.next_line = 0

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            # The last iteration may go past the target.
            done = min(self.agent.env_steps - self.start, steps)
            values = [
                (label, logs[name])
                for name, label in shown.items()
                if logs and not math.isnan(logs.get(name, math.nan))
            ]
            if sys.stdout.isatty():
                self.bar.update(done, values)
            elif done >= self.next_line:
                # A file or a pipe gets about ten lines.
                text = ", ".join(f"{label} {value:.1f}" for label, value in values)
                click.echo(f"{done:,}/{steps:,} steps: {text}")
                self.next_line = min(done + max(steps // 10, 1), steps)

        def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
            if sys.stdout.isatty() and self.agent.env_steps - self.start < steps:
                click.echo()

    return ProgressBar()
