"""Several policies in one file."""

import json
import pathlib
import tempfile

import keras
import numpy as np

from kerasrl.agents import Agent
from kerasrl.checkpoint import archive, contract, safety
from kerasrl.checkpoint.archive import CheckpointError
from kerasrl.checkpoint.configs import deserialize_config, serialize_config
from kerasrl.training import parts, saving

_SETTINGS = ("mapping", "train", "reward", "seed", "count_steps_by")
_STATE = {"rng", "env_name", "env_steps", "agent_steps", "iterations", "statistics"}
_STATE |= {"opponents"}


def check(agent, path):
    """Describes several policies, or raises if they could not be loaded again.

    Args:
        agent: A `MultiAgent`.
        path: Where it is to be saved, for messages.

    Returns:
        Dict of JSON-compatible data.

    Raises:
        ValueError: A part has no config, or is code such as a lambda.
    """
    settings = serialize_config({name: getattr(agent, name) for name in _SETTINGS})
    rules, unmet = {}, {}
    for name, member in agent.agents.items():
        if isinstance(member, Agent):
            if member.policy.observation_space is not None:
                member.check_savable(path)
                continue
            if not member.policy.compiled:
                member.compile()
            unmet[name] = saving.check(member, path)
            continue
        known = keras.saving.get_registered_name(type(member))
        if keras.saving.get_registered_object(known) is not type(member):
            raise ValueError(
                f"Cannot save the policy {name!r}: {type(member).__name__} is not "
                "registered. Decorate the class with "
                "keras.saving.register_keras_serializable(), and give it get_config "
                "and from_config."
            )
        rules.update(serialize_config({name: member}))
    config = {
        **settings,
        "agents": list(agent.agents),
        "rules": rules,
        # Nobody was mapped to them yet: they have no weights.
        "unmet": unmet,
    }
    plain = json.loads(archive.dump(config))
    safety.refuse_unknown(path, plain, classes=False)
    return config


def save(agent, path, include_replay):
    """Implements `MultiAgent.save`."""
    path = pathlib.Path(path).expanduser()
    config = check(agent, path)
    files = {}
    with tempfile.TemporaryDirectory() as directory:
        for number, (name, member) in enumerate(agent.learners.items()):
            if member.policy.observation_space is None:
                continue
            own = member.save(pathlib.Path(directory) / str(number), include_replay)
            files[name] = np.frombuffer(own.read_bytes(), np.uint8)
    for name, arrays in agent.get_arrays().items():
        # No id of a policy begins like that.
        files.update({f"/{i}/{name}": array for i, array in enumerate(arrays)})
    described = {
        "schema": archive.SCHEMA,
        "versions": saving.versions(),
        "agent": keras.saving.get_registered_name(type(agent)),
        "config": config,
        "compile": {},
        "variables": [],
        "replay": list(files),
    }
    members = {
        archive.CONFIG: archive.dump(described),
        archive.STATE: archive.dump(agent.get_state()),
    }
    for number, content in enumerate(files.values()):
        members[archive.array_name(number, "replay")] = content
    archive.write_atomically(path, members)
    return path


def restore(cls, path, config, state, files):
    """Makes a `MultiAgent` of the content of a file; see `kerasrl.load`.

    Args:
        cls: `MultiAgent` or a subclass.
        path: Of the file, for messages.
        config: Dict, the configuration in the file.
        state: Dict.
        files: Dict from ids of policies to the files of their agents, uint8 arrays.

    Raises:
        CheckpointError: It is not what `save` writes.
    """
    found = dict(config["config"])
    snapshots = {}
    for key in [key for key in files if key.startswith("/")]:
        snapshots.setdefault(key.split("/", 2)[2], []).append(files.pop(key))
    safety.refuse_unknown(path, found)
    names, rules = found.pop("agents", None), found.pop("rules", None)
    unmet = found.pop("unmet", {})  # Older files have none.
    if not (isinstance(names, list) and isinstance(rules, dict)):
        raise CheckpointError(f"{path} is damaged: it does not say of which policies.")
    given = sorted([*rules, *files, *unmet])
    if given != sorted(names):
        raise CheckpointError(
            f"{path} is damaged: it has the policies {given}, and says {sorted(names)}."
        )
    rules = deserialize_config(rules)
    members = {}
    with tempfile.TemporaryDirectory() as directory:
        for number, name in enumerate(names):
            if name in rules:
                members[name] = rules[name]
                continue
            if name in unmet:
                members[name] = _make(path, unmet[name])
                continue
            own = pathlib.Path(directory) / str(number)
            if files[name].dtype != np.uint8:
                raise CheckpointError(f"{path} is damaged: {name!r} is no file.")
            own.write_bytes(files[name].tobytes())
            try:
                members[name] = saving.load(own)
            except CheckpointError as error:
                # Where it was put for reading says nothing.
                where = f"{path} (the policy {name!r})"
                raise CheckpointError(str(error).replace(str(own), where)) from error
            own.unlink()
    agent = cls(members, **deserialize_config(found))
    missing = _STATE - set(state)
    if missing:
        contract.refuse(path, "the keys", sorted(state), sorted(_STATE))
    for key in ("env_steps", "agent_steps", "iterations"):
        contract.check_count(path, key, state[key])
    opponents = state["opponents"]
    if not isinstance(opponents, dict) or set(opponents) != set(agent.opponents):
        contract.refuse(path, "opponents", opponents, sorted(agent.opponents))
    arrays = {name: snapshots.get(name, []) for name in opponents}
    agent.set_state(state, arrays)
    for name, member in agent.opponents.items():
        _check_snapshots(path, name, member, agent.agents[member.of])
    return agent


def _make(path, described):
    """Makes an agent that has no weights yet."""
    cls = keras.saving.get_registered_object(described["agent"])
    if not (isinstance(cls, type) and issubclass(cls, Agent)):
        raise CheckpointError(
            f"{path} has a policy of the class {described['agent']!r}, which is not "
            "known here. Import the module that registers it."
        )
    parts.refuse_others(cls, described.get("functions", {}))
    if isinstance(described["config"].get("policy"), dict):
        described["config"]["policy"].pop("compile_config", None)
    agent = cls.from_config(described["config"])
    optimizer = keras.saving.deserialize_keras_object(described["optimizer"])
    options = keras.saving.deserialize_keras_object(described["compile"])
    agent.compile(optimizer, **options)
    return agent


def _check_snapshots(path, name, opponents, main):
    """Raises a CheckpointError unless snapshots are weights of who they are of."""
    if not opponents.snapshots:
        return
    if main.policy.observation_space is None or main.actor().program is None:
        raise CheckpointError(
            f"{path} has snapshots {name!r} of {opponents.of!r}, which has no weights, "
            "or acts by TensorFlow here."
        )
    wanted = [(each.dtype, each.shape) for each in main.actor().program.weights]
    for number, snapshot in enumerate(opponents.snapshots):
        if [(each.dtype, each.shape) for each in snapshot] != wanted or not all(
            map(contract.all_finite, snapshot)
        ):
            raise CheckpointError(
                f"{path} is damaged: snapshot {number} of {name!r} has arrays of other "
                f"shapes than the weights of {opponents.of!r}, or no finite numbers."
            )
