"""Files of episodes: columns in an uncompressed zip, mapped into memory, no pickle.

A shard is what `numpy.savez` writes, so that `numpy.load` reads it, with an index in
JSON beside the arrays. Arrays begin at multiples of 64 bytes, and are mapped where they
lie. Shards are written under another name and renamed: one that has its name is whole.
"""

import contextlib
import json
import math
import os
import re
import secrets
import struct
import weakref
import zipfile
import zlib
from pathlib import Path

import numpy as np

from kerasrl.offline.episodes import PLAIN, check_bounds
from kerasrl.offline.table import Table, build_tree, count_leaves
from kerasrl.spaces import named_leaves

INDEX = "dataset.json"
FORMAT, VERSION = "kerasrl-episodes", 1
NAME = re.compile(r"shard-(\d{6,})-[0-9a-f]{8}\.npz")
_ALIGNMENT = 64
_EXTRA_ID = 0x6B72
_PER_EPISODE = {"lengths": "i", "terminated": "b", "truncated": "b"}


class DamagedFile(ValueError):
    """A file that is not what was once written."""


def write(path, table):
    """Writes a `Table` as a shard.

    Args:
        path: Path. It is there when all of it is, or not at all.
        table: `Table` of at least one episode.
    """
    arrays = {name: getattr(table, name) for name in _PER_EPISODE}
    for name, leaves in table.columns.items():
        arrays |= {f"{name}.{i}": leaf for i, leaf in enumerate(leaves)}
    index = {"version": VERSION, "extras": table.structures}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("index.json", json.dumps(index))
            for name, array in arrays.items():
                _write_array(archive, file, f"{name}.npy", array)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path):
    """A context in which a file is written that takes its place when all went well.

    Args:
        path: Path that it is to have.

    Yields:
        Path to write to. Nothing is left of it after an error.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_array(archive, file, name, array):
    info = zipfile.ZipInfo(name)
    # A field of the header, of a length that makes the array begin where it should.
    start = file.tell() + zipfile.sizeFileHeader + len(name) + 4
    is_large = array.nbytes > 2**31
    start += 20 * is_large  # What zip adds for those.
    padding = -start % _ALIGNMENT
    info.extra = struct.pack("<HH", _EXTRA_ID, padding) + bytes(padding)
    array = np.ascontiguousarray(array)
    with archive.open(info, "w", force_zip64=is_large) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


class Shard:
    """A file of episodes, whose arrays are mapped into memory while they are used.

    Args:
        path: Path of the file.
        observation_space, action_space: `gymnasium.spaces.Space` of one environment.
        verify: Whether the checksums of all arrays are compared, which reads the file.

    Raises:
        DamagedFile: It is not as it was written, or has anything but plain numbers.
    """

    def __init__(self, path, observation_space, action_space, verify=True):
        self.path = Path(path)
        self.observation_space = observation_space
        self.action_space = action_space
        self._whole = _nothing
        with self._refusing():
            self._members = _read_members(self.path, verify)
            self.structures = self._read_index()
            self._check(verify)
        self.nbytes = sum(
            math.prod(shape) * dtype.itemsize
            for _, shape, dtype in self._members.values()
        )

    def __getstate__(self):
        return {**vars(self), "_whole": _nothing}

    def table(self):
        """Returns a `Table` of mapped arrays."""
        columns = {
            name: [self._map(f"{name}.{i}") for i in range(count)]
            for name, count in self._counts().items()
        }
        return Table(
            self.observation_space,
            self.action_space,
            self.lengths,
            self.terminated,
            self.truncated,
            columns,
            self.structures,
        )

    def episode(self, index):
        """Returns an `Episode` of mapped arrays."""
        return self.table().episode(index)

    def _map(self, name):
        offset, shape, dtype = self._members[name]
        size = math.prod(shape) * dtype.itemsize
        if size == 0:
            return np.zeros(shape, dtype)
        # One map for all arrays, as long as any of them is used: each is an open file.
        whole = self._whole()
        if whole is None:
            whole = np.memmap(self.path, np.uint8, "r")
            self._whole = weakref.ref(whole)
        return whole[offset : offset + size].view(dtype).reshape(shape)

    def _counts(self):
        """How many arrays each column has."""
        counts = {
            "observations": len(named_leaves(self.observation_space)),
            "actions": len(named_leaves(self.action_space, "action")),
            "rewards": 1,
        }
        for name, structure in self.structures.items():
            counts[f"extras.{name}"] = count_leaves(structure)
        return counts

    def _read_index(self):
        with zipfile.ZipFile(self.path) as archive:
            index = json.loads(archive.read("index.json"))
        if not isinstance(index, dict) or index.get("version") != VERSION:
            raise ValueError(f"its index has not version {VERSION}")
        structures = index["extras"]
        for structure in structures.values():
            # Raises for what describes no tree.
            build_tree(structure, range(count_leaves(structure)))
        return structures

    def _check(self, verify):
        names = {
            f"{n}.{i}" for n, count in self._counts().items() for i in range(count)
        }
        if set(self._members) != names | set(_PER_EPISODE):
            raise ValueError(
                f"it has the arrays {sorted(self._members)}, not those of its spaces"
            )
        self.lengths, self.terminated, self.truncated = (
            np.array(self._map(name)) for name in _PER_EPISODE
        )
        count, steps = len(self.lengths), int(self.lengths.sum())
        if self.lengths.ndim != 1 or (self.lengths < 1).any():
            raise ValueError("the lengths of its episodes are none")
        shapes = {name: (steps,) for name in names}
        shapes |= dict.fromkeys(_PER_EPISODE, (count,))
        for role in ("observations", "actions"):
            space = getattr(self, f"{role.removesuffix('s')}_space")
            for i, (_, leaf) in enumerate(named_leaves(space)):
                rows = steps + count if role == "observations" else steps
                shapes[f"{role}.{i}"] = (rows, *leaf.shape)
        for name, (_, shape, dtype) in self._members.items():
            expected = shapes[name]
            exact = name in _PER_EPISODE or not name.startswith("extras.")
            found = shape if exact else shape[:1]
            kind = _PER_EPISODE.get(name)
            if found != expected or (kind and dtype.kind != kind):
                raise ValueError(f"{name} has shape {shape} and dtype {dtype}")
        if verify:
            actions = [
                self._map(f"actions.{i}") for i in range(self._counts()["actions"])
            ]
            check_bounds(actions, self.action_space)

    @contextlib.contextmanager
    def _refusing(self):
        try:
            yield
        except (
            *(ValueError, TypeError, KeyError, AttributeError, EOFError),
            *(OSError, zipfile.BadZipFile, zlib.error, struct.error),
            *(NotImplementedError, RuntimeError, SyntaxError),
        ) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise DamagedFile(
                f"{self.path} is damaged, or no file of episodes: {error}. Nothing of "
                "it was read. Leave it out with kerasrl.offline.load(path, "
                'damaged="skip").'
            ) from error


def _nothing():
    return None


def _read_members(path, verify):
    """Offsets, shapes and dtypes of the arrays of a shard, by name."""
    members = {}
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        if verify:
            bad = archive.testzip()
            if bad is not None:
                raise ValueError(f"the checksum of {bad} is another")
        size = os.fstat(file.fileno()).st_size
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{info.filename} is compressed")
            file.seek(info.header_offset)
            header = file.read(zipfile.sizeFileHeader)
            name_length, extra_length = struct.unpack("<HH", header[26:30])
            file.seek(name_length + extra_length, os.SEEK_CUR)
            shape, is_fortran, dtype = _read_header(file)
            if is_fortran and len(shape) > 1:
                raise ValueError(f"{info.filename} has columns first")
            if dtype.hasobject or dtype.kind not in PLAIN:
                raise ValueError(
                    f"{info.filename} has {dtype}, which would have to be unpickled"
                )
            stop = file.tell() + math.prod(shape) * dtype.itemsize
            if stop > size or min(shape, default=0) < 0:
                raise ValueError(f"{info.filename} is longer than the file")
            name = info.filename.removesuffix(".npy")
            members[name] = (file.tell(), shape, dtype)
    return members


def _read_header(file):
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)
