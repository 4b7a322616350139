"""The `kerasrl` command: what users type, turned into calls of the public interface.

TensorFlow is imported only by the commands that need it, once its messages have been
silenced; `kerasrl --help` answers at once. Everything that is not about a terminal
belongs elsewhere: what to train is read by `experiment`, and trained by agents.
"""

import click

from kerasrl.cli.checkpoints import evaluate, rollout
from kerasrl.cli.common import Group
from kerasrl.cli.data import data
from kerasrl.cli.inspection import list_command, stack, tuned_command
from kerasrl.cli.results import results_command
from kerasrl.cli.sweeping import launch, tune
from kerasrl.cli.training import train


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kerasrl", prog_name="kerasrl")
def main() -> None:
    """Deep reinforcement learning in Keras 3."""


COMMANDS = (
    *(train, tune, launch, results_command),
    *(evaluate, rollout, list_command, tuned_command, stack, data),
)
for command in COMMANDS:
    main.add_command(command)
