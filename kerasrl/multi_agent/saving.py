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
from kerasrl.training import saving

_SETTINGS = ("mapping", "train", "reward", "seed")
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
    rules = {}
    for name, member in agent.agents.items():
        if isinstance(member, Agent):
            if member.policy.observation_space is not None:
                member.check_savable(path)
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
    config = {**settings, "agents": list(agent.agents), "rules": rules}
    plain = json.loads(archive.dump(config))
    safety.refuse_unknown(path, plain, classes=False)
    return config


def save(agent, path, include_replay):
    """Implements `MultiAgent.save`."""
    path = pathlib.Path(path).expanduser()
    config = check(agent, path)
    for name, member in agent.learners.items():
        if member.policy.observation_space is None:
            raise ValueError(
                f"The policy {name!r} has no weights to save yet: nobody was mapped to "
                "it. Call its build first."
            )
    files = {}
    with tempfile.TemporaryDirectory() as directory:
        for number, (name, member) in enumerate(agent.learners.items()):
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
    if not isinstance(names, list) or not isinstance(rules, dict):
        raise CheckpointError(f"{path} is damaged: it does not say of which policies.")
    if sorted([*rules, *files]) != sorted(names):
        raise CheckpointError(
            f"{path} is damaged: it has the policies {sorted([*rules, *files])}, and "
            f"says {sorted(names)}."
        )
    rules = deserialize_config(rules)
    members = {}
    with tempfile.TemporaryDirectory() as directory:
        for number, name in enumerate(names):
            if name in rules:
                members[name] = rules[name]
                continue
            own = pathlib.Path(directory) / str(number)
            if files[name].dtype != np.uint8:
                raise CheckpointError(f"{path} is damaged: {name!r} is no file.")
            own.write_bytes(files[name].tobytes())
            members[name] = saving.load(own)
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
    return agent
