"""Workers that are actors of a Ray cluster: what local ones do, on other nodes."""

import dataclasses
import os
import re
import signal
import sys
import time
import traceback
import warnings

import numpy as np
import pytest
import ray
from daily import among
from tiny import make
from walks import Listener, Walk, ZeroActor, assert_equal, begun, generators

import kerasrl
from kerasrl.workers import (
    RayCluster,
    make_collector,
    make_environments,
    ray_cluster,
)
from kerasrl.workers.mirrored_arrays import MirroredArrays

# Many actors with little to do share the processors that there are.
LIGHT = RayCluster(num_cpus=0.1)
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes on this machine, joined by this process."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Else Ray's processes give way to all others.
        patch.setenv("RAY_worker_niceness", "0")
        head = {**node, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            cluster.add_node(**node)
            ray.init(
                address=cluster.address, log_to_driver=False, logging_level="ERROR"
            )
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def collected(mode, cluster, rollouts=3, listener=None):
    envs, collector = begun(mode, listener=listener, cluster=cluster)
    with envs:
        found = []
        for number in range(rollouts):
            collector.exploration["curiosity"][:] = number
            collector.actor.program.weights[1][:] *= 0.9
            found.append(collector.collect())
        return found, collector.drain_episodes()


@pytest.mark.parametrize("mode", among(["act", "step", "alternate"], ["act"]))
def test_same_seed_same_data(cluster, mode):
    listeners = Listener(), Listener()
    found, records = collected(mode, LIGHT, listener=listeners[0])
    expected, others = collected(mode, None, listener=listeners[1])
    for rollout, other in zip(found, expected, strict=True):
        assert_equal(rollout, other)
    assert [dataclasses.asdict(r) for r in records] == [
        dataclasses.asdict(r) for r in others
    ]
    assert len(listeners[0].heard) == len(listeners[1].heard) > 0


class Large(ZeroActor):
    """Has more weights than go along with every call."""

    def __init__(self):
        super().__init__()
        self.program.weights = [np.zeros((200, 300), np.float32)]


def test_weights_are_put_once_for_all_workers(cluster, monkeypatch):
    from kerasrl.workers import ray_cluster

    sizes, put = [], ray_cluster.ray.put

    def counting(value):
        sizes.append(sum(np.asarray(leaf).nbytes for leaf in value))
        return put(value)

    with make_environments(Walk, 4, num_workers=2, cluster=LIGHT) as envs:
        collector = make_collector(envs, Large(), 4, generators(4))
        collector.exploration = {"curiosity": np.zeros(4, np.float32)}
        collector.reset(range(4))
        monkeypatch.setattr(ray_cluster.ray, "put", counting)
        for _ in range(3):
            collector.collect()
    assert sizes == [240_000] * 3


def test_asynchronous_workers_follow_the_published_weights(cluster):
    envs, collector = begun("asynchronous", num_envs=4, cluster=LIGHT)
    with envs:
        versions = []
        # Until new ones have come through, however long a worker waits for a processor.
        for version in range(1, 201):
            oldest = min(collector.versions_in_use())
            rollout = collector.collect()
            assert rollout.rewards.shape == (4, 2) and rollout.valid.all()
            versions.append(int(rollout.extras["policy_version"][0, 0]))
            assert versions[-1] >= oldest
            collector.publish(version)
            if version > 10 and versions[-1] > 4:
                break
        # Workers are brought to rest before they are asked for something else.
        assert envs.foreach(lambda env: env.phase) == [0] * 4
        counts = collector.drain_counts()
    assert versions[0] == 0 and versions[-1] > 4
    assert 0 < counts["policy_lag_max"] <= version
    assert counts["discarded_share"] == 0.0


def test_populations_have_the_results_of_one_process(cluster):
    from test_population_workers import assert_same, play

    assert_same(play(0), play(2, cluster=LIGHT))


def test_a_worker_sees_no_tensorflow_and_runs_on_both_nodes(cluster):
    def look(worker):
        import ray

        heavy = {"tensorflow", "keras", "torch"} & set(sys.modules)
        return heavy, ray.get_runtime_context().get_node_id(), worker.worker_index

    with make_environments(Walk, 4, num_workers=2, cluster="ray") as envs:
        heavy, nodes, indices = zip(*envs.pool.foreach_worker(look), strict=True)
    assert heavy == (set(), set()) and indices == (1, 2)
    assert len(set(nodes)) == 2


def test_errors_arrive_with_their_traceback(cluster):
    class Fails(Walk):
        def step(self, action):
            raise KeyError("no such lever")

    envs, collector = begun("act", env=Fails, cluster=LIGHT)
    with envs, pytest.raises(KeyError, match="no such lever") as caught:
        collector.collect()
    text = "".join(traceback.format_exception(caught.value))
    assert "In worker 1 (process" in text and "in step" in text


@pytest.mark.parametrize("mode", among(["act", "asynchronous"], ["asynchronous"]))
def test_an_actor_that_is_lost_is_replaced(cluster, mode, tmp_path):
    # Classes of functions are sent whole: actors need not import this module.
    class Exits(Walk):
        """Ends its process in its third step, in one environment, once."""

        def step(self, action):
            mark = self.context["mark"]
            is_time = self.context.env_index == 3 and self.time == 2
            if is_time and not os.path.exists(mark):
                open(mark, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().step(action)

    config = {"mark": str(tmp_path / "mark"), "length": 5}
    envs, collector = begun(mode, 4, env=Exits, config=config, cluster=LIGHT)
    with envs:
        with pytest.warns(RuntimeWarning, match="Worker 2 .* was lost.*takes its"):
            found = [collector.collect() for _ in range(6)]
            # The other worker may have been ahead.
            while envs.pool.generations == [0, 0] and len(found) < 200:
                found.append(collector.collect())
        assert envs.pool.generations == [0, 1]
    if mode == "asynchronous":
        # Fragments that it had not finished are dropped whole.
        assert all(rollout.valid.all() for rollout in found)
        assert collector.drain_counts()["discarded_share"] > 0
        return
    lost = [not rollout.valid[:, 2:].any() for rollout in found]
    assert lost == [True] + [False] * 5
    assert found[0].truncated[:, 2:].all() and found[0].valid[:, :2].all()
    assert all(rollout.valid.all() for rollout in found[1:])
    assert found[1].episode_starts[0, 2:].all()


def test_a_hanging_environment_is_replaced(cluster, tmp_path):
    mark = str(tmp_path / "mark")

    class Hangs(Walk):
        def step(self, action):
            if self.context.env_index == 1 and not os.path.exists(mark):
                open(mark, "w").close()
                time.sleep(600)
            return super().step(action)

    envs, collector = begun("act", 4, env=Hangs, timeout=1.0, cluster=LIGHT)
    with envs, pytest.warns(RuntimeWarning, match="(?s)Environment 1 .*in step"):
        assert not collector.collect().valid[:, :2].any()


# Ray takes half a minute to notice. On a busy machine it says other things, or nothing.
@pytest.mark.slow
def test_a_node_that_is_lost_is_made_up_for(cluster):
    class Busy:
        def is_there(self):
            return True

    # Both workers go to a node that has the only processors that are free.
    busy = ray.remote(num_cpus=1)(Busy)
    others = [busy.remote() for _ in range(2)]
    # Before that node is there: they would go to it as well.
    assert all(ray.get([each.is_there.remote() for each in others]))
    node = cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    envs, collector = begun("act", 4, cluster="ray")
    with envs:
        assert collector.collect().valid.all()
        for other in others[:1]:
            ray.kill(other)
        cluster.remove_node(node, allow_graceful=False)
        # Actors outlive their node for a moment, in which they may finish a rollout.
        deadline, is_whole = time.monotonic() + 60.0, []
        with pytest.warns(RuntimeWarning) as caught:
            while min(envs.pool.generations) < 1 and time.monotonic() < deadline:
                valid = collector.collect().valid
                # Each half is of one worker.
                parts = valid[:, :2], valid[:, 2:]
                assert all(part.all() or not part.any() for part in parts)
                is_whole.append(valid.all())
        assert not all(is_whole)
        said = " ".join(str(each.message) for each in caught)
        assert "was lost with its node" in said or "its node was: it can" in said
        # There is room for one of them on the nodes that are left.
        assert re.search(r"has room for worker [12] \(num_cpus=1\). It shares", said)
        assert collector.collect().valid.all()
        assert min(envs.pool.generations) >= 1


def test_numbers_that_all_share_are_refused(cluster):
    class Counts(Walk):
        def __init__(self, context):
            super().__init__(context)
            self.wins = kerasrl.SharedValue("wins")

    with pytest.raises(Exception, match="memory of one machine"):
        make_environments(Counts, 2, num_workers=2, cluster=LIGHT)


FIT = {"steps": 160, "num_envs": 4, "num_workers": 2, "verbose": 0}


@pytest.mark.parametrize(
    "name, settings",
    [
        ("PPO", {}),
        pytest.param("DQN", {}, marks=pytest.mark.slow),
        pytest.param("IMPALA", {"synchronous": True}, marks=pytest.mark.slow),
        pytest.param("PPO_recurrent", {}, marks=pytest.mark.slow),
    ],
)
def test_agents_learn_the_same(cluster, name, settings):
    found = []
    for each in (None, LIGHT):
        agent = make(name, **settings)
        agent.fit("CartPole-v1", cluster=each, **FIT)
        found.append(agent.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_agents_that_do_not_wait_learn(cluster):
    agent = make("ApexDQN")
    history = agent.fit("CartPole-v1", cluster=LIGHT, **{**FIT, "steps": 400})
    assert np.isfinite(history.history["loss"][-1]) and agent.env_steps >= 400


def test_evolution_is_the_same(cluster):
    found = []
    for each in (None, LIGHT):
        agent = kerasrl.ES(policy={"hidden_units": (4,)}, num_pairs=3, seed=1)
        agent.fit("CartPole-v1", cluster=each, **FIT)
        found.append(agent.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_room_is_on_one_node(cluster, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_ROOM_SECONDS", 1)
    assert ray.cluster_resources()["CPU"] >= 2
    assert not ray_cluster._has_room(RayCluster(num_cpus=1.5))
    assert not ray_cluster._has_room(RayCluster(num_cpus=0.1, resources={"x": 1}))
    assert ray_cluster._has_room(RayCluster(num_cpus=0.1))
    assert ray_cluster._has_room(RayCluster(num_cpus=0))


def test_who_finds_no_room_is_told_what_is_missing(cluster, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_ROOM_SECONDS", 1)
    busy = RayCluster(num_cpus=99)
    said = ray_cluster._without_room(busy, 0)
    assert "worker 1 (num_cpus=99). It shares processors" in said
    waiting = RayCluster(num_cpus=99, num_gpus=1, resources={"camera": 2.0})
    said = ray_cluster._without_room(waiting, 1)
    assert "worker 2 (num_cpus=99, GPU=1, camera=2). It waits" in said
    assert "has GPU and camera free" in said and "processors" not in said


def test_without_a_cluster_none_is_begun(monkeypatch):
    channel = ray_cluster.RayChannel(actor=None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConnectionError, match="The actor is gone"):
        channel.signal(b"x")
    channel.close()


def test_who_was_told_nothing_hears_at_once():
    shared = MirroredArrays.like({"x": np.zeros(2)})
    channel = ray_cluster.RayChannel(actor=None)
    channel._told[shared.key], channel._told_at[shared.key] = {}, 0.0
    assert channel._news([shared]) == [[]] and channel._told_at[shared.key] == 0.0
    shared.wrote(("x",))
    assert len(channel._news([shared])) == 2 and channel._told_at[shared.key] > 0.0
    channel.close()


@pytest.mark.parametrize(
    "cluster_argument, message",
    [
        ("slurm", "Expected None for processes of this machine"),
        ({"num_cpu": 1}, "Unknown argument of `cluster`.*'num_cpu'"),
        ({"num_cpus": -1}, "num_cpus=-1"),
    ],
)
def test_clusters_that_make_no_sense(cluster_argument, message):
    with pytest.raises(ValueError, match=message):
        make_environments(Walk, 2, num_workers=2, cluster=cluster_argument)
    with pytest.raises(ValueError, match="num_workers=0"):
        make_environments(Walk, 2, cluster=cluster_argument)
