"""Training that goes on from its last checkpoint when ranks are lost."""

import pathlib
import warnings

from kerasrl.distribute import scopes


def run_elastic(train, directory):
    """Runs training that survives the loss of ranks.

    Under `horovodrun` with hosts that may come and go (`--min-np`), `train` is called
    again in the ranks that are left, and in new ones, and goes on from the newest
    checkpoint. Elsewhere a lost rank ends the others with a `ConnectionError`; when all
    are started again, `train` goes on from there.

    Args:
        train: Function of the path of the newest checkpoint, `None` if there is none
            yet. Loads it or makes an agent, and calls `fit` with
            `AgentCheckpoint(directory)` for the steps that are missing.
        directory: Path of the directory of the checkpoints, on a file system that all
            hosts share.

    Returns:
        What `train` returns.

    Example:

    ```python
    def train(checkpoint):
        agent = kerasrl.load(checkpoint) if checkpoint else kerasrl.PPO()
        missing = 100_000 - agent.env_steps
        if missing > 0:
            checkpoints = kerasrl.callbacks.AgentCheckpoint("run")
            agent.fit("CartPole-v1", steps=missing, callbacks=[checkpoints])
        return agent

    with kerasrl.distribute.Horovod():
        agent = kerasrl.distribute.run_elastic(train, "run")
    ```
    """
    replicas = scopes.current()
    attempts = []

    def attempt():
        attempts.append(replicas.num_ranks)
        with replicas.errors():
            newest = newest_checkpoint(directory)
            # That of rank 0: others may see one more or less by now.
            (newest, *_) = replicas.gather_data(newest and str(newest))
            if len(attempts) > 1 and replicas.is_chief:
                warnings.warn(
                    f"Ranks were lost or came: going on with {attempts[-1]} instead of "
                    f"{attempts[-2]}, from {newest or 'the start'}.",
                    stacklevel=2,
                )
            return train(newest)

    return replicas.survive(attempt)


def newest_checkpoint(directory):
    """Returns the path of the last numbered checkpoint in a directory, or `None`."""
    paths = pathlib.Path(directory).expanduser().glob("checkpoint-*")
    numbers = {path.name.removeprefix("checkpoint-"): path for path in paths}
    # Neither that of the best, nor those of other ranks than the first.
    iterations = [int(number) for number in numbers if number.isdigit()]
    return numbers[str(max(iterations))] if iterations else None


class Hosts:
    """What Horovod's elastic mode asks of a state: this one is kept in checkpoints.

    Args:
        replicas: The `Horovod` whose ranks come and go.
    """

    def __init__(self, replicas):
        self.replicas = replicas
        self._have_changed = False

    def check(self):
        """Leaves the training, in all ranks at once, if hosts came or are to go."""
        from horovod.common.exceptions import HostsUpdatedInterrupt

        if any(self.replicas.gather_data(self._have_changed)):
            raise HostsUpdatedInterrupt(skip_sync=False)

    # Called by Horovod ----------------------------------------------------------

    def on_hosts_updated(self, timestamp, update_res):
        self._have_changed = True

    def on_reset(self):
        self._have_changed = False
        self.replicas.find_place()

    def sync(self):
        """Does nothing: each attempt loads a checkpoint."""

    def restore(self):
        """Does nothing: each attempt loads a checkpoint."""
