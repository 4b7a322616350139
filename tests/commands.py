"""Commands run in this process, as the tests of the command line share them."""

from click.testing import CliRunner

from kerasrl.cli import main

SMALL = [
    *("--set", "rollout_length=16", "--set", "num_epochs=1"),
    *("--set", "minibatch_size=16", "--set", "policy.hidden_units=[8]"),
    *("--num-envs", "2", "--seed", "0", "--progress", "none", "--eval-episodes", "2"),
]


def kerasrl(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def error(*arguments, code=2):
    """The output of a command that must fail with one line."""
    result = kerasrl(*arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    (line,) = result.output.splitlines()
    assert line.startswith("Error: ") and not line.startswith("Error: Error")
    return line
