"""Train with workers that are actors of a Ray cluster.

Joins the cluster at `--address`, or starts one of this machine alone, and says on which
nodes the environments are. Needs the extra `ray`.

Run: python examples/cluster.py --steps 100000 --workers 2
"""

import argparse
import collections

import kerasrl


class Places(kerasrl.callbacks.Callback):
    """Counts, when training begins, how many workers each node has."""

    def on_train_begin(self, logs=None):
        """Asks the workers."""
        self.counts = collections.Counter(self.agent.workers.foreach_worker(node_of))


def node_of(worker):
    """The address of the node that a worker is on; runs there."""
    import ray

    return ray.util.get_node_ip_address()


def main():
    """Trains, and prints where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--address", help="of a cluster; 'auto' for the one here")
    arguments = parser.parse_args()
    # Half a processor each: on a small machine the learner needs one, too.
    cluster = kerasrl.RayCluster(address=arguments.address, num_cpus=0.5)
    places = Places()
    agent = kerasrl.PPO(rollout_length=64, seed=0)
    history = agent.fit(
        "CartPole-v1",
        steps=arguments.steps,
        num_envs=4 * arguments.workers,
        num_workers=arguments.workers,
        cluster=cluster,
        callbacks=[places],
        verbose=0,
    ).history
    for address, count in places.counts.items():
        print(f"{count} workers on {address}")
    print(f"return {history['episode_return_mean'][-1]:.0f}")


if __name__ == "__main__":
    main()
