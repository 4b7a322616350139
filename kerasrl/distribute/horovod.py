"""Replicas that are processes of a Horovod job."""

import os

import numpy as np
import tensorflow as tf

from kerasrl.distribute import scopes
from kerasrl.distribute.elastic import Hosts
from kerasrl.distribute.gathering import Gathering, LostRank

#: Milliseconds between two looks of Horovod at what is to be exchanged. Its own default
#: is made for large networks, and would be most of the time of a small one's step.
CYCLE_TIME = "0.1"
#: Seconds after which ranks that wait for another give up.
STALL_SHUTDOWN = "600"


class Horovod(Gathering):
    """Replicas that are processes of a Horovod job, started by `horovodrun`.

    Each process is one rank with one device: GPU number `local_rank` where there are
    GPUs. It collects from its own environments, and gradients are averaged over ranks.

    Agents made within its context belong to it.

    Raises:
        ImportError: Horovod is not installed.

    Example:

    ```python
    with kerasrl.distribute.Horovod():
        agent = kerasrl.PPO()
        agent.fit("CartPole-v1", steps=100_000)
    ```

    ```
    horovodrun -np 2 python train.py
    ```
    """

    def __init__(self):
        os.environ.setdefault("HOROVOD_CYCLE_TIME", CYCLE_TIME)
        os.environ.setdefault("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", STALL_SHUTDOWN)
        try:
            import horovod.tensorflow as hvd
        except ImportError as error:
            raise ImportError(
                "Horovod is not installed here, or not for this TensorFlow. From a "
                "checkout of kerasrl run scripts/install_horovod.sh, which builds it "
                f"({error})."
            ) from error
        self._hvd = hvd
        hvd.init()
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            tf.config.set_visible_devices(gpus[hvd.local_rank() % len(gpus)], "GPU")
        self._hosts = None
        self.find_place()

    def find_place(self):
        """Asks Horovod which of how many ranks this is."""
        self.num_ranks = self._hvd.size()
        self.rank = self._hvd.rank()

    def __enter__(self):
        scopes.enter(self)
        return self

    def __exit__(self, *error):
        scopes.leave(self)

    def sum(self, x):
        return self._hvd.allreduce(x, op=self._hvd.Sum)

    def gather(self, array):
        array = np.atleast_1d(array)
        sizes = self._hvd.allgather(np.array([len(array)]))
        rows = self._hvd.allgather(array).numpy()
        return np.split(rows, np.cumsum(sizes.numpy())[:-1])

    def survive(self, function):
        if not os.environ.get("HOROVOD_ELASTIC"):
            return function()
        from horovod.common.exceptions import HorovodInternalError

        def attempt(hosts):
            try:
                return function()
            except LostRank as error:
                raise HorovodInternalError(str(error)) from error

        self._hosts = Hosts(self)
        try:
            return self._hvd.elastic.run(attempt)(self._hosts)
        finally:
            self._hosts = None

    def committed(self):
        if self._hosts is not None:
            self._hosts.check()

    def is_lost(self, error):
        if type(error).__name__ == "HorovodInternalError" or super().is_lost(error):
            return True
        # Within compiled code Horovod's errors have types that others use as well.
        return isinstance(error, tf.errors.OpError) and "orovod" in str(error)
