"""One process of `test_equal_updates.py`: updates on its part of fixed batches.

`python equal_updates.py MODE FOLDER ALGORITHM...`: with several replicas on parts, and
in mode `"mirrored:2"`, which is one process, with one replica on whole batches before.
Writes what came of it to `FOLDER/<rank>.npz` and to `FOLDER/whole.npz`.
"""

import sys

import gymnasium
import keras
import numpy as np

import kerasrl
from kerasrl import distribute
from kerasrl.distributions import TanhGaussian
from kerasrl.training import ranks
from kerasrl.training.compiled import CompiledUpdate

BOX = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
ACTIONS = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32)
STEPS, ENVS = 6, 8
BATCHES, SAMPLES, ROWS = 3, 8, 9
SMALL = {"hidden_units": (8,)}


def noise_of_the_sample(shape, seed=None, *, like=None):
    """Noise that does not depend on who draws it: whole batches and parts agree."""
    return keras.ops.sin(7.0 * like)


def sample_and_log_prob(self, seed=None):
    draw = keras.random.normal
    keras.random.normal = lambda shape, seed: noise_of_the_sample(shape, like=self.mean)
    try:
        return original(self, seed)
    finally:
        keras.random.normal = draw


original = TanhGaussian.sample_and_log_prob
TanhGaussian.sample_and_log_prob = sample_and_log_prob


class Ranks:
    """The part of this rank along an axis."""

    def __init__(self, replicas):
        self.replicas = replicas

    def part(self, tree, axis):
        def cut(x):
            return np.split(x, self.replicas.num_ranks, axis)[self.replicas.rank]

        return keras.tree.map_structure(cut, tree)


def rollout(rng):
    """Steps with fillers, most of them in the second half of the environments."""
    shape = (STEPS, ENVS)
    valid = rng.random(shape) > np.array([0.0] * 4 + [0.6] * 4)
    truncated = ~valid | (rng.random(shape) < 0.1)
    values = rng.normal(size=shape).astype(np.float32)
    return {
        "observations": rng.normal(2.0, 3.0, (*shape, 4)).astype(np.float32),
        "actions": rng.integers(2, size=shape),
        "rewards": rng.normal(size=shape).astype(np.float32),
        "terminated": rng.random(shape) < 0.1,
        "truncated": truncated,
        "valid": valid,
        "episode_starts": np.zeros(shape, bool),
        "previous_actions": np.zeros(shape, np.int64),
        "previous_rewards": np.zeros(shape, np.float32),
        "truncation_values": np.where(truncated, values, np.float32(0.0)),
        "extras": {"log_probs": rng.normal(-0.7, 0.1, shape).astype(np.float32)},
        "infos": {},
    }


def last_inputs(rng):
    return {
        "observations": rng.normal(2.0, 3.0, (ENVS, 4)).astype(np.float32),
        "previous_actions": np.zeros(ENVS, np.int64),
        "previous_rewards": np.zeros(ENVS, np.float32),
        "episode_starts": np.zeros(ENVS, bool),
    }


def transitions(rng, actions):
    shape = (BATCHES, SAMPLES)
    return {
        "observations": rng.normal(size=(*shape, 4)).astype(np.float32),
        "actions": actions,
        "rewards": 3.0 * rng.normal(size=shape).astype(np.float32),
        "next_observations": rng.normal(size=(*shape, 4)).astype(np.float32),
        "discounts": rng.choice(np.array([0.0, 0.9], np.float32), shape),
        "terminated": np.zeros(shape, bool),
        "truncated": np.zeros(shape, bool),
        "steps": np.ones(shape, np.int32),
        "weights": rng.uniform(0.1, 1.0, shape).astype(np.float32),
    }


def sequences(rng, state):
    """Sequences that end early, most of them in the second half of each batch."""
    shape = (BATCHES, SAMPLES, ROWS)
    lengths = np.where(np.arange(SAMPLES) < SAMPLES // 2, ROWS, ROWS // 2)
    valid = np.broadcast_to(np.arange(ROWS) < lengths[:, None], shape).copy()
    return {
        "observations": rng.normal(size=(*shape, 4)).astype(np.float32),
        "actions": rng.integers(2, size=shape),
        "rewards": 3.0 * rng.normal(size=shape).astype(np.float32),
        "terminated": np.zeros(shape, bool),
        "truncated": ~valid,
        "valid": valid,
        "episode_starts": rng.random(shape) < 0.1,
        "previous_actions": np.zeros(shape, np.int64),
        "previous_rewards": np.zeros(shape, np.float32),
        "state": keras.tree.map_structure(
            lambda x: rng.normal(size=(*shape[:2], *x.shape[1:])).astype(np.float32),
            state,
        ),
        "weights": rng.uniform(0.1, 1.0, shape[:2]).astype(np.float32),
    }


def built(agent, actions, start=ranks.synchronize):
    # Momentum, not Adam: that would scale gradients as small as rounding errors up.
    agent.compile(keras.optimizers.SGD(0.3, momentum=0.9), jit_compile=False)
    agent.build(BOX, actions)
    with agent.replicas.scope():
        start(agent, 0)
    return agent


def ppo(mine, seed):
    policy = {**SMALL, "normalize_observations": True}
    agent = kerasrl.PPO(policy, max_grad_norm=0.05, seed=seed)
    agent = built(agent, gymnasium.spaces.Discrete(2))
    rng = np.random.default_rng(0)
    batch, last = rollout(rng), last_inputs(rng)
    batch = mine.part(batch, axis=1)
    batch |= {"state": (), "next_inputs": mine.part(last, axis=0)}
    size = batch["rewards"].size
    # The whole batch in each step, in another order each time.
    order = np.array([rng.permutation(size) for _ in range(BATCHES)], np.int32)
    minibatches = {
        "indices": order,
        "weights": np.ones(order.shape, np.float32),
        "count": np.int32(BATCHES),
    }
    update = CompiledUpdate(agent, agent._targets_and_update)
    return agent, update, (batch, agent.scheduled_values(), minibatches)


def lagged(agent_class, **arguments):
    """Learns from what other weights acted."""

    def make(mine, seed):
        policy = {**SMALL, "normalize_observations": True}
        agent = agent_class(policy, max_grad_norm=0.05, seed=seed, **arguments)
        agent = built(agent, gymnasium.spaces.Discrete(2))
        rng = np.random.default_rng(0)
        batch = mine.part(rollout(rng), axis=1)
        batch |= {"state": (), "next_inputs": mine.part(last_inputs(rng), axis=0)}
        minibatches = ()
        if agent_class is kerasrl.APPO:
            order = np.tile(np.arange(batch["rewards"].size, dtype=np.int32), (3, 1))
            minibatches = {
                "indices": order,
                "weights": np.ones(order.shape, np.float32),
                "count": np.int32(3),
                "update_target": np.array(True),
            }
        if agent_class is kerasrl.A3C:
            variables = agent.policy.trainable_variables
            acted = [0.9 * keras.ops.convert_to_numpy(v) for v in variables]
            minibatches = {"weights": acted}
        update = CompiledUpdate(agent, agent._targets_and_update)
        return agent, update, (batch, agent.scheduled_values(), minibatches)

    return make


def replay(agent, mine, batches):
    numbers = np.arange(BATCHES)
    update = CompiledUpdate(agent, agent._updates)
    batches = mine.part(batches, axis=1)
    return agent, update, (batches, agent.scheduled_values(), agent.due(numbers))


def options(seed):
    return {
        "max_grad_norm": 0.05,
        "seed": seed,
        "train_every": 1,
        "target_update_interval": 2,
        "tau": 0.5,
    }


def dqn(mine, seed):
    agent = kerasrl.DQN(SMALL, prioritized=True, **options(seed))
    agent = built(agent, gymnasium.spaces.Discrete(2))
    rng = np.random.default_rng(1)
    actions = rng.integers(2, size=(BATCHES, SAMPLES))
    return replay(agent, mine, transitions(rng, actions))


def sac(mine, seed):
    agent = built(kerasrl.SAC(SMALL, prioritized=True, **options(seed)), ACTIONS)
    rng = np.random.default_rng(2)
    actions = rng.uniform(-2.0, 2.0, (BATCHES, SAMPLES, 2)).astype(np.float32)
    return replay(agent, mine, transitions(rng, actions))


def r2d2(mine, seed):
    agent = kerasrl.R2D2(
        {"cell_units": 4, **SMALL},
        burn_in=2,
        sequence_length=ROWS - 3,
        n_step=2,
        **options(seed),
    )
    agent = built(agent, gymnasium.spaces.Discrete(2))
    state = keras.tree.map_structure(np.asarray, agent.policy.get_initial_state(1))
    return replay(agent, mine, sequences(np.random.default_rng(3), state))


def remembering(agent_class):
    def make(mine, seed):
        agent = agent_class(
            {"cell": "gru", "cell_units": 4, **SMALL},
            prioritized=True,
            burn_in=2,
            sequence_length=ROWS - 3,
            n_step=2,
            **options(seed),
        )
        agent = built(agent, ACTIONS)
        rng = np.random.default_rng(4)
        state = keras.tree.map_structure(np.asarray, agent.policy.get_initial_state(1))
        batches = sequences(rng, state)
        shape = (*batches["actions"].shape, 2)
        batches["actions"] = rng.uniform(-2.0, 2.0, shape).astype(np.float32)
        batches["previous_actions"] = np.zeros(shape, np.float32)
        return replay(agent, mine, batches)

    return make


ALGORITHMS = {
    "PPO": ppo,
    "A3C": lagged(kerasrl.A3C),
    "IMPALA": lagged(kerasrl.IMPALA),
    "APPO": lagged(kerasrl.APPO, vtrace=True, target_network=True),
    "DQN": dqn,
    "SAC": sac,
    "R2D2": r2d2,
    "DDPG_recurrent": remembering(kerasrl.DDPG),
    "SAC_recurrent": remembering(kerasrl.SAC),
}


def run(names, file):
    replicas = distribute.current()
    mine, results = Ranks(replicas), {}
    for name in names:
        # Another seed in each rank: only the weights of rank 0 may count.
        agent, update, inputs = ALGORITHMS[name](mine, seed=10 + replicas.rank)
        with replicas.scope():
            metrics = update(*inputs)
        for index, weights in enumerate(agent.get_weights()):
            results[f"{name}/weights/{index}"] = weights
        for variable in agent.own_variables:
            if variable.dtype == "float32":
                value = keras.ops.convert_to_numpy(variable)
                results[f"{name}/own/{variable.path}"] = value
        for key, value in metrics.items():
            results[f"{name}/metrics/{key}"] = value
        if not isinstance(update.outputs, tuple):
            results[f"{name}/td_errors"] = update.outputs.numpy()
    np.savez(file, **results)


if __name__ == "__main__":
    mode, folder, *names = sys.argv[1:]
    with distribute.open_scope(mode):
        run(names, f"{folder}/{distribute.current().rank}.npz")
    if mode.startswith("mirrored"):
        assert distribute.current().num_local == 1
        run(names, f"{folder}/whole.npz")
