"""The file of a checkpoint: members, limits, and writing it atomically."""

import contextlib
import io
import json
import math
import os
import pathlib
import tempfile
import zipfile
import zlib

import numpy as np

try:
    import fcntl
except ImportError:  # Not on Windows: what killed saves left stays there.
    fcntl = None  # type: ignore[assignment]

SCHEMA = 1
CONFIG, STATE = "config.json", "state.json"
#: Bytes of a JSON member. Read, it takes some twenty times as much memory.
_MOST_JSON = 2**26
#: What arrays may hold. `bfloat16` is written by NumPy as two bytes of anything.
_DTYPES = {
    *("bool", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "bfloat16"),
}
#: More than NumPy reads of a header.
_HEADER_BYTES = 2**14
_CHUNK_BYTES = 2**20
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class CheckpointError(ValueError):
    """A file is not a checkpoint that can be loaded here; the message says why."""


def write_atomically(path, members):
    """Writes a zip file beside its place, then renames it into it.

    What saves of the same file left beside it when they were killed is removed.

    Args:
        path: `pathlib.Path` of the file.
        members: Dict from member names to bytes or NumPy arrays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    handle, temporary = _make_temporary(path)
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
            # Before the lock goes with the file, so that nobody takes it for abandoned.
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def _make_temporary(path):
    """A locked temporary file: whoever can lock it knows that its writer is gone."""
    while True:
        handle, temporary = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
        )
        if fcntl is None:
            return handle, temporary
        with contextlib.suppress(OSError):  # Some network drives have no locks.
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(temporary):
            return handle, temporary
        os.close(handle)  # Removed by another save before it was locked.


def _remove_abandoned(path):
    if fcntl is None:
        return
    prefix, suffix = f".{path.name}.", ".tmp"
    for found in path.parent.iterdir():
        # As `tempfile` makes them, or else it is that of another target.
        middle = found.name.removeprefix(prefix).removesuffix(suffix)
        if found.name != prefix + middle + suffix or "." in middle:
            continue
        with contextlib.suppress(OSError), open(found, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.unlink()


def read(path):
    """Reads and checks the members of a file; no object is made of them.

    Args:
        path: `pathlib.Path`.

    Returns:
        Tuple of the configuration and the state, dicts, the list of arrays of
        variables, and the dict of arrays of the replay buffer.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is no complete checkpoint of this schema.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    try:
        return _read(path)
    except CheckpointError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        KeyError,
        NotImplementedError,
        RecursionError,
        json.JSONDecodeError,
        UnicodeDecodeError,
    ) as error:
        raise CheckpointError(
            f"{path} is not a complete kerasrl checkpoint ({error}). It may have been "
            "cut off while copying; use an earlier one."
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path} is not a valid checkpoint: {type(error).__name__}: {error}"
        ) from error


def _read(path):
    with zipfile.ZipFile(path) as archive:
        _check_members(path, archive)
        config = _read_json(path, archive, CONFIG)
        described, replay_names = _check_config(path, config)
        names = [array_name(index) for index in range(len(described))]
        replay = [array_name(index, "replay") for index in range(len(replay_names))]
        found = set(archive.namelist())
        expected = {CONFIG, STATE, *names, *replay}
        if found != expected:
            raise CheckpointError(
                f"{path} has unexpected or missing members: "
                f"{sorted(found ^ expected)[:6]}. It is not a kerasrl checkpoint."
            )
        state = _read_json(path, archive, STATE)
        arrays = []
        for name, (dtype, shape) in zip(names, described, strict=True):
            array = _read_array(path, archive, name, dtype)
            if array.shape != shape or array.dtype.name != dtype:
                raise CheckpointError(
                    f"{path} is corrupt: {name} has shape {array.shape} and dtype "
                    f"{array.dtype}, but {CONFIG} says {shape} and {dtype}."
                )
            arrays.append(array)
        replay = [_read_array(path, archive, name) for name in replay]
    return config, state, arrays, dict(zip(replay_names, replay, strict=True))


def _check_members(path, archive):
    """Raises for members that `write_atomically` does not write, before any is read."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        raise CheckpointError(f"{path} has several members of one name.")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise CheckpointError(
                f"{path} is not a valid checkpoint: {entry.filename} is compressed or "
                "encrypted, which checkpoints never are."
            )
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(
            f"{path} is not a valid checkpoint: its members claim to be larger than "
            "the file."
        )


def _read_json(path, archive, name):
    if archive.getinfo(name).file_size > _MOST_JSON:
        raise CheckpointError(f"{path} is not a valid checkpoint: {name} is too large.")
    content = json.loads(archive.read(name))
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a valid checkpoint: {name} is no object.")
    return content


def _read_array(path, archive, name, dtype=None):
    content = _read_bytes(archive, name)
    stream = io.BytesIO(content[:_HEADER_BYTES])
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise CheckpointError(f"{path}: {name} has the format {version} of NumPy.")
    shape, is_fortran, found = _HEADERS[version](stream)
    if dtype == "bfloat16" and found == np.dtype("V2"):
        found = np.dtype(dtype)
    if found.hasobject:
        raise CheckpointError(f"{path}: {name} holds Object arrays, which are code.")
    if found.name not in _DTYPES or not found.isnative:
        raise CheckpointError(f"{path}: {name} has the dtype {found}.")
    start, count = stream.tell(), math.prod(shape)
    if any(size < 0 for size in shape) or len(content) - start != (
        count * found.itemsize
    ):
        raise CheckpointError(
            f"{path} is corrupt: {name} has not as many bytes as its shape {shape} "
            f"and dtype {found} say."
        )
    array = np.frombuffer(content, found, count, start)
    if found.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise CheckpointError(f"{path} is corrupt: {name} is neither true nor false.")
    return array.reshape(shape, order="F" if is_fortran else "C")


def _read_bytes(archive, name):
    """A member as a `bytearray`, so that arrays over it can be written to."""
    content = bytearray(archive.getinfo(name).file_size)
    view, start = memoryview(content), 0
    with archive.open(name) as member:
        while start < len(content):
            count = member.readinto(view[start : start + _CHUNK_BYTES])
            if not count:
                raise EOFError(f"{name} ends early")
            start += count
        member.read(1)  # The end is where the checksum is compared.
    return content


def _check_config(path, config):
    """The dtypes and shapes of all variables, and the names of replay arrays."""
    if "schema" not in config:
        raise CheckpointError(
            f"{path} has no schema number: it is not a kerasrl checkpoint."
        )
    if config["schema"] != SCHEMA or isinstance(config["schema"], bool):
        versions = config.get("versions")
        versions = versions if isinstance(versions, dict) else {}
        raise CheckpointError(
            f"{path} has schema {config['schema']}, written by kerasrl "
            f"{versions.get('kerasrl')}. This version reads schema "
            f"{SCHEMA}: install the kerasrl that wrote it, or a newer one."
        )
    for name, kind in (("agent", str), ("config", dict), ("compile", dict)):
        if not isinstance(config[name], kind):
            raise CheckpointError(
                f"{path} is not a valid checkpoint: {name} is {config[name]!r:.80}."
            )
    # Files written before there were replay buffers do not mention any.
    replay = config.get("replay", [])
    if (
        not isinstance(replay, list)
        or not all(isinstance(name, str) for name in replay)
        or len(set(replay)) < len(replay)
    ):
        raise CheckpointError(
            f"{path} is not a valid checkpoint: replay is {replay!r:.80}, not a list "
            "of different names."
        )
    if not isinstance(config["variables"], list):
        raise CheckpointError(f"{path} has no list of variables, so no members.")
    return [_read_description(path, each) for each in config["variables"]], replay


def _read_description(path, description):
    try:
        name, dtype = description["path"], description["dtype"]
        shape = description["shape"]
        valid = isinstance(name, str) and dtype in _DTYPES and isinstance(shape, list)
        valid = valid and all(type(size) is int and size >= 0 for size in shape)
    except (KeyError, TypeError):
        valid = False
    if not valid:
        raise CheckpointError(
            f"{path} describes the members of arrays by {description!r:.80}. Expected "
            "a path, a shape and a dtype."
        )
    return dtype, tuple(shape)


def array_name(index, folder="arrays"):
    """Name of the member of an array."""
    return f"{folder}/{index:05d}.npy"


def dump(data):
    """JSON-compatible data as bytes."""
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
