"""Saving and loading whole agents."""

import json
import logging
import pathlib

import keras
import numpy as np

from kerasrl import distribute
from kerasrl.checkpoint import archive, contract, safety, weights
from kerasrl.checkpoint.archive import CheckpointError
from kerasrl.checkpoint.configs import serialize_object
from kerasrl.training import asynchrony, optimizing, parts, rebuilding
from kerasrl.training.trainer import Trainer

_logger = logging.getLogger(__name__)

#: Entries of the configuration that Keras makes objects of.
_OBJECTS = ("config", "optimizer", "compile")


def save(agent, path, include_replay=True):
    """Writes an agent to a file; see `Agent.save`.

    Args:
        agent: An `Agent` that was built.
        path: Path of the file.
        include_replay: Whether the arrays of the replay buffer are written.

    Returns:
        The path of the file, a `pathlib.Path`. Each rank but the first has one of its
        own beside it, with its random generators and its part of the replay buffer.

    Raises:
        ValueError: The agent has no weights yet, or they are no longer finite, or a
            part of it would come back as something else.
    """
    if agent.policy.observation_space is None:
        raise ValueError(
            "The agent has no weights to save yet. Call fit or build first."
        )
    path, replicas = pathlib.Path(path).expanduser(), agent.replicas
    if replicas.num_ranks > 1:
        agent.tally.flush()
    own_path = _path_of_rank(path, replicas.rank)
    named = weights.variables(agent)
    # Older weights are what is acted by next, and belong to the agent.
    replay = agent.get_arrays() if include_replay else asynchrony.get_arrays(agent)
    config = {
        "schema": archive.SCHEMA,
        "versions": versions(),
        **check(agent, own_path),
        **weights.describe_trained(agent),
        "variables": [
            {"path": name, "shape": list(variable.shape), "dtype": variable.dtype}
            for name, variable in named
        ],
        "replay": list(replay),
    }
    members = {
        archive.CONFIG: archive.dump(config),
        archive.STATE: archive.dump(agent.get_state()),
    }
    for index, (name, variable) in enumerate(named):
        array = keras.ops.convert_to_numpy(variable)
        if variable.trainable and not contract.all_finite(array):
            raise ValueError(
                f"The weights of the agent are not finite ({name}), so it is not "
                "saved. Go on from the last checkpoint, with a lower learning rate."
            )
        members[archive.array_name(index)] = array
    for index, array in enumerate(replay.values()):
        members[archive.array_name(index, "replay")] = array
    if not replicas.is_chief:
        archive.write_atomically(own_path, members)
    # Where there is a file of rank 0, there are those of the others.
    replicas.barrier()
    if replicas.is_chief:
        archive.write_atomically(own_path, members)
    _logger.info("Saved %s at %d steps.", own_path, agent.env_steps)
    return own_path


def check(agent, path):
    """Describes an agent, or raises if it could not be loaded again as what it is.

    Once for each agent and policy, the agent is made again from the description and
    compared with itself, see `rebuilding.compare`.

    Args:
        agent: An `Agent`.
        path: Where it is to be saved, for messages.

    Returns:
        Dict of JSON-compatible data.

    Raises:
        ValueError: A part has no config, or is code, such as a lambda, or comes back as
            something else.
    """
    optimizer = serialize_object("optimizer", agent.policy.optimizer)
    described = {
        "agent": keras.saving.get_registered_name(type(agent)),
        "functions": parts.describe(agent),
        "config": agent.get_config(),
        "optimizer": optimizer,
        "compile": _compile_config(agent),
    }
    plain = json.loads(archive.dump(described))
    for part in _OBJECTS:
        safety.refuse_unknown(path, plain[part], classes=False)
    rebuilding.compare(agent, plain)
    return described


def load(path, custom_objects=None):
    """Restores an agent that goes on exactly where it was saved.

    Args:
        path: Path of a file written by `Agent.save`.
        custom_objects: Dict from names to classes or functions of your own that are
            not registered with `keras.saving.register_keras_serializable`.

    Returns:
        The agent.

    Raises:
        FileNotFoundError: There is no such file.
        kerasrl.checkpoint.CheckpointError: A `ValueError`. The file is truncated,
            corrupt, of a newer schema, not a checkpoint, names a class that is not
            known here, does not fit into memory, or holds what an agent would not have
            written, such as NaN.

    Example:

    ```python
    agent = kerasrl.load("cartpole.kerasrl")
    agent.evaluate("CartPole-v1")
    ```
    """
    path, rank = pathlib.Path(path).expanduser(), distribute.current().rank
    # Where there were fewer ranks, the others start from the file of the first.
    knows_its_rank = rank == 0 or _path_of_rank(path, rank).exists()
    path = _path_of_rank(path, rank) if knows_its_rank else path
    content = archive.read(path)
    with keras.saving.custom_object_scope(custom_objects or {}):
        try:
            with weights.nameless():
                agent = _restore(path, *content)
        except CheckpointError:
            raise
        except Exception as error:
            # Whatever goes wrong, in Keras, in NumPy or for want of memory, is about
            # this file.
            reason = f"{type(error).__name__}: {error}"
            if len(reason) > 600:
                reason = f"{reason[:600]} ..."
            raise CheckpointError(
                f"{path} is not a valid checkpoint of this version, or does not fit "
                f"here. {reason}"
            ) from error
    agent.knows_its_rank = knows_its_rank
    _logger.info("Loaded %s at %d steps.", path, agent.env_steps)
    return agent


def _restore(path, config, state, arrays, replay):
    agent_class = keras.saving.get_registered_object(config["agent"])
    if not (isinstance(agent_class, type) and issubclass(agent_class, Trainer)):
        raise CheckpointError(
            f"{path} holds an agent of class {config['agent']!r}, which is not "
            "known here. Import the module that registers it (with "
            "keras.saving.register_keras_serializable, with_updates or "
            "build_agent_class), or pass custom_objects."
        )
    if hasattr(agent_class, "restore"):
        # It is made of several, each with a file within this one.
        return agent_class.restore(path, config, state, replay)
    # Files that were written before have none.
    parts.refuse_others(agent_class, config.get("functions", {}))
    for part in _OBJECTS:
        safety.refuse_unknown(path, config[part])
    contract.check_state(path, state, replay)
    if isinstance(config["config"].get("policy"), dict):
        # The agent compiles it anew, with an optimizer that the file holds apart.
        config["config"]["policy"].pop("compile_config", None)
    safety.refuse_misfits(path, config)
    agent = agent_class.from_config(config["config"])
    parts.trust(agent)
    optimizer = keras.saving.deserialize_keras_object(config["optimizer"])
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise CheckpointError(
            f"{path} has no optimizer, but {config['optimizer']!r:.200}."
        )
    options = keras.saving.deserialize_keras_object(config["compile"])
    agent.compile(optimizer, **options)
    trained, followed = weights.read_trained(path, agent, config)
    with agent.replicas.scope():
        optimizing.build(agent, trained)
        agent.build(agent.policy.observation_space, agent.policy.action_space)
        if followed:
            agent.follow(followed)
    # Before each part of an agent had an optimizer of its own, one was for all.
    joined = optimizing.joined(agent, [entry["path"] for entry in config["variables"]])
    named = weights.variables(agent, joined)
    contract.check_arrays(path, agent.policy.optimizer, named, arrays)
    contract.check_keys(path, agent, state)
    for (_, variable), array in zip(named, arrays, strict=True):
        variable.assign(array)
    if joined is not None:
        optimizing.separate(agent, joined)
    agent.set_state(state, replay)
    rebuilding.trust(agent)
    return agent


def _compile_config(agent):
    return {
        "metrics": agent.policy.get_compile_config().get("weighted_metrics"),
        "jit_compile": agent.jit_compile,
        "run_eagerly": agent.policy.run_eagerly,
    }


def versions():
    """Returns the versions of the packages that a checkpoint depends on, a dict."""
    import gymnasium
    import tensorflow as tf

    from kerasrl import __version__

    return {
        "kerasrl": __version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "gymnasium": gymnasium.__version__,
        "numpy": np.__version__,
    }


def _path_of_rank(path, rank):
    return path.with_name(f"{path.name}.rank{rank}") if rank else path
