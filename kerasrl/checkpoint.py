"""Checkpoints: one zip file without pickle, written atomically.

| member | content |
|---|---|
| `config.json` | schema, versions, class and arguments of the agent, optimizer |
| `state.json` | counters, statistics of episodes, states of random generators |
| `arrays/NNNNN.npy` | variables of the policy, the optimizer and the agent |
| `replay/NNNNN.npy` | arrays of the replay buffer, if there is one |

Loading runs no code from the file: classes are looked up among those already
registered with Keras, arrays are read with `allow_pickle=False`, and anything
unexpected raises a `ValueError`.
"""

import json
import os
import pathlib
import sys
import tempfile
import zipfile
import zlib

import keras
import numpy as np

from kerasrl import distribute

SCHEMA = 1
#: Kinds with which Keras writes plain data.
_PLAIN_KINDS = {
    "__ellipsis__",
    "__keras_tensor__",
    "__numpy__",
    "__slice__",
    "__tensor__",
    "__tuple__",
}
#: Layers of Keras that read files or hold code. Keras refuses them too, by default.
_FOREIGN = {"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"}
_CONFIG, _STATE = "config.json", "state.json"
#: Entries of the configuration that Keras makes objects of.
_OBJECTS = ("config", "optimizer", "compile")
# Keras configurations may name a module to import a class from. Accepted are classes
# of these, operations of functional models, and what is registered or passed as
# custom_objects.
_MODULES = {
    "keras",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.layers",
    "keras.losses",
    "keras.metrics",
    "keras.models",
    "keras.optimizers",
    "keras.optimizers.schedules",
    "keras.regularizers",
}


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
        ValueError: The agent has no weights yet, or a part of it has no config.
    """
    if agent.policy.observation_space is None:
        raise ValueError(
            "The agent has no weights to save yet. Call fit or build first."
        )
    path, replicas = pathlib.Path(path).expanduser(), agent.replicas
    if replicas.num_ranks > 1:
        agent.pool.flush()
    own_path = _path_of_rank(path, replicas.rank)
    named = variables(agent)
    replay = agent.get_arrays() if include_replay else {}
    config = {
        "schema": SCHEMA,
        "versions": _versions(),
        **check(agent, own_path),
        "variables": [
            {"path": name, "shape": list(variable.shape), "dtype": variable.dtype}
            for name, variable in named
        ],
        "replay": list(replay),
    }
    members = {
        _CONFIG: _dump(config),
        _STATE: _dump(agent.get_state()),
    }
    for index, (_, variable) in enumerate(named):
        members[_array_name(index)] = keras.ops.convert_to_numpy(variable)
    for index, array in enumerate(replay.values()):
        members[_array_name(index, "replay")] = array
    if not replicas.is_chief:
        write_atomically(own_path, members)
    # Where there is a file of rank 0, there are those of the others.
    replicas.barrier()
    if replicas.is_chief:
        write_atomically(own_path, members)
    return own_path


def check(agent, path):
    """Describes an agent, or raises if that could not be loaded again.

    Args:
        agent: An `Agent`.
        path: Where it is to be saved, for messages.

    Returns:
        Dict of JSON-compatible data.

    Raises:
        ValueError: A part has no config, or is code, such as a lambda.
    """
    described = {
        "agent": keras.saving.get_registered_name(type(agent)),
        "config": agent.get_config(),
        "optimizer": keras.saving.serialize_keras_object(agent.policy.optimizer),
        "compile": _compile_config(agent),
    }
    for part in _OBJECTS:
        _refuse_unknown(path, json.loads(_dump(described[part])), classes=False)
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
        ValueError: The file is truncated, corrupt, of a newer schema, not a
            checkpoint, or names a class that is not known here.

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
    import kerasrl.agents  # noqa: F401  (registers the built-in classes)

    with keras.saving.custom_object_scope(custom_objects or {}):
        config, state, arrays, replay = _read(path)
        try:
            agent = _restore(path, config, state, arrays, replay)
            agent.knows_its_rank = knows_its_rank
            return agent
        except ValueError as error:
            if str(path) in str(error):
                raise
            raise ValueError(f"{path} cannot be loaded: {error}") from error
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"{path} is not a valid checkpoint of this version: "
                f"{type(error).__name__}: {error}"
            ) from error


def _restore(path, config, state, arrays, replay):
    from kerasrl.agents import Agent

    agent_class = keras.saving.get_registered_object(config["agent"])
    if not (isinstance(agent_class, type) and issubclass(agent_class, Agent)):
        raise ValueError(
            f"{path} holds an agent of class {config['agent']!r}, which is not "
            "known here. Import the module that registers it (with "
            "keras.saving.register_keras_serializable), or pass custom_objects."
        )
    for part in _OBJECTS:
        _refuse_unknown(path, config[part])
    agent = agent_class.from_config(config["config"])
    optimizer = keras.saving.deserialize_keras_object(config["optimizer"])
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(f"{path} has no optimizer, but {config['optimizer']!r}.")
    options = keras.saving.deserialize_keras_object(config["compile"])
    agent.compile(optimizer, **options)
    agent.build(agent.policy.observation_space, agent.policy.action_space)
    _assign(path, agent, config["variables"], arrays)
    agent.set_state(state, replay)
    return agent


def serialize_config(config):
    """Turns constructor arguments into JSON-compatible data.

    Args:
        config: Dict. Values may be Keras objects with a `get_config`, or functions
            registered with `keras.saving.register_keras_serializable`.

    Returns:
        Dict.

    Raises:
        ValueError: A value is a function that is not registered.
    """
    for name, value in config.items():
        is_class_instance = hasattr(value, "get_config")
        if callable(value) and not is_class_instance:
            registered = keras.saving.get_registered_name(value)
            if keras.saving.get_registered_object(registered) is not value:
                raise ValueError(
                    f"Cannot save {name}={value!r}: it is a function that is not "
                    "registered. Decorate a named function with "
                    "keras.saving.register_keras_serializable(), or use a "
                    "keras.optimizers.schedules object."
                )
    return {
        name: keras.saving.serialize_keras_object(value)
        for name, value in config.items()
    }


def deserialize_config(config):
    """Inverse of `serialize_config`."""
    return {
        name: keras.saving.deserialize_keras_object(value)
        for name, value in config.items()
    }


def write_atomically(path, members):
    """Writes a zip file beside its place, then renames it into it.

    Args:
        path: `pathlib.Path` of the file.
        members: Dict from member names to bytes or NumPy arrays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(
        prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
    )
    try:
        with os.fdopen(handle, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, content in members.items():
                    with archive.open(name, "w", force_zip64=True) as member:
                        if isinstance(content, bytes):
                            member.write(content)
                        else:
                            np.lib.format.write_array(
                                member, content, allow_pickle=False
                            )
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def _read(path):
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"{path} is corrupt: {damaged} fails its checksum.")
            names = set(archive.namelist())
            config = json.loads(archive.read(_CONFIG))
            _check_config(path, config)
            variables = [_array_name(i) for i in range(len(config["variables"]))]
            # Files written before there were replay buffers do not mention any.
            replay_names = config.get("replay", [])
            replay = [_array_name(i, "replay") for i in range(len(replay_names))]
            expected = {_CONFIG, _STATE, *variables, *replay}
            if names != expected:
                raise ValueError(
                    f"{path} has unexpected or missing members: "
                    f"{sorted(names ^ expected)}. It is not a kerasrl checkpoint."
                )
            state = json.loads(archive.read(_STATE))
            arrays = [_read_array(archive, name) for name in variables]
            replay = [_read_array(archive, name) for name in replay]
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        json.JSONDecodeError,
    ) as error:
        raise ValueError(
            f"{path} is not a complete kerasrl checkpoint ({error}). It may have been "
            "cut off while copying; use an earlier one."
        ) from error
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path} is not a valid checkpoint: {error}") from error
    return config, state, arrays, dict(zip(replay_names, replay, strict=True))


def _read_array(archive, name):
    with archive.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _check_config(path, config):
    if not isinstance(config, dict) or "schema" not in config:
        raise ValueError(
            f"{path} has no schema number: it is not a kerasrl checkpoint."
        )
    if config["schema"] != SCHEMA:
        raise ValueError(
            f"{path} has schema {config['schema']}, written by kerasrl "
            f"{config.get('versions', {}).get('kerasrl')}. This version reads schema "
            f"{SCHEMA}: install the kerasrl that wrote it, or a newer one."
        )


def _refuse_unknown(path, config, classes=True):
    """Raises for configurations that would make Keras import or run other code.

    Without `classes`, only for those that nobody could load: classes of one's own need
    not be registered before they are saved.
    """
    if isinstance(config, list):
        for value in config:
            _refuse_unknown(path, value, classes)
    if not isinstance(config, dict):
        return
    if "class_name" in config:
        kind, module = config["class_name"], config.get("module")
        is_function = kind == "function"
        # Keras looks functions up by their config, whatever name is registered.
        name = config.get("config") if is_function else config.get("registered_name")
        name = str(name or kind)
        if kind in _FOREIGN:
            known = False
        elif str(kind).startswith("__"):
            known = kind in _PLAIN_KINDS
        elif not classes or keras.saving.get_registered_object(name) is not None:
            known = True
        elif is_function:
            known = module == "builtins" and hasattr(keras.activations, name)
        else:
            known = module in _MODULES or _is_operation(module, kind)
        if not known:
            raise ValueError(
                f"{path} refers to {module}.{name} ({kind}), which is not registered "
                "here or is code. Import the module that registers it (with "
                "keras.saving.register_keras_serializable), or pass custom_objects "
                "to kerasrl.load."
            )
    for value in config.values():
        _refuse_unknown(path, value, classes)


def _is_operation(module, name):
    """Whether a name is that of a model, layer or operation of Keras, imported here.

    Keras writes functional models, and each operation in them, with the module that
    defines it.
    """
    if not str(module).startswith("keras."):
        return False
    found = getattr(sys.modules.get(module), str(name), None)
    return isinstance(found, type) and issubclass(found, keras.Operation)


def _assign(path, agent, descriptions, arrays):
    named = variables(agent)
    expected = [(name, tuple(variable.shape)) for name, variable in named]
    received = [(entry["path"], tuple(entry["shape"])) for entry in descriptions]
    if [shape for _, shape in expected] != [shape for _, shape in received]:
        raise ValueError(
            f"{path} does not fit the policy it describes: received variables "
            f"{received}, expected {expected}."
        )
    for (name, variable), array in zip(named, arrays, strict=True):
        if array.shape != tuple(variable.shape):
            raise ValueError(
                f"{path}: the array of {name} has shape {array.shape}, expected "
                f"{tuple(variable.shape)}."
            )
        variable.assign(array)


def variables(agent):
    """Returns all variables that a checkpoint holds, pairs of a name and a variable."""
    policy = agent.policy
    metrics = {id(v) for metric in policy.metrics for v in metric.variables}
    # `variables` rather than `weights`: states of random generators are among them.
    named = [(f"policy/{v.path}", v) for v in policy.variables if id(v) not in metrics]
    named += [(f"optimizer/{v.path}", v) for v in policy.optimizer.variables]
    named += [(f"agent/{v.path}", v) for v in agent.own_variables]
    return named


def _compile_config(agent):
    return {
        "metrics": agent.policy.get_compile_config().get("weighted_metrics"),
        "jit_compile": agent.jit_compile,
        "run_eagerly": agent.policy.run_eagerly,
    }


def _versions():
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


def _array_name(index, folder="arrays"):
    return f"{folder}/{index:05d}.npy"


def _dump(data):
    return json.dumps(data, indent=1, default=_to_plain).encode()


def _to_plain(value):
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(
        f"Cannot write {value!r} of type {type(value).__name__} to a checkpoint. "
        "get_config and get_state must return JSON-compatible data."
    )


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
