"""One process of `test_lost_ranks.py`: trains until a file says that it is enough.

`python until_told.py MODE FOLDER` goes on from the last checkpoint in the folder, and
ends when there is `FOLDER/finish`. Writes the process id of each rank to
`FOLDER/<rank>.pid`, and for each epoch the number of ranks, iterations and environment
steps to a line of `FOLDER/epochs.txt`.
"""

import os
import pathlib
import sys

import kerasrl
from kerasrl import distribute
from kerasrl.callbacks import AgentCheckpoint, Callback


class UntilTold(Callback):
    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch, logs=None):
        agent = self.agent
        if agent.replicas.is_chief:
            numbers = agent.replicas.num_ranks, agent.iterations, agent.env_steps
            with open(self.folder / "epochs.txt", "a") as file:
                print(*(int(number) for number in numbers), file=file)
        if (self.folder / "finish").exists():
            self.model.stop_training = True


def train(checkpoint):
    (folder / f"{distribute.current().rank}.pid").write_text(str(os.getpid()))
    if checkpoint is None:
        policy = {"hidden_units": (8,)}
        agent = kerasrl.PPO(policy, rollout_length=16, num_epochs=1, minibatch_size=16)
    else:
        agent = kerasrl.load(checkpoint)
    checkpoints = AgentCheckpoint(folder, every=2, keep_best=False)
    agent.fit(
        "CartPole-v1",
        steps=10_000_000,
        steps_per_epoch=64,
        num_envs=2,
        verbose=0,
        callbacks=[checkpoints, UntilTold(folder)],
    )


if __name__ == "__main__":
    mode, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    with distribute.open_scope("horovod" if mode == "elastic" else mode):
        distribute.run_elastic(train, folder)
