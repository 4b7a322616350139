"""Arrays in memory that several processes map."""

import contextlib
import dataclasses
import fcntl
import mmap
import os
import tempfile

import numpy as np
import optree

_ALIGNMENT = 64


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where an array lies: a leaf of a layout."""

    offset: int
    shape: tuple
    dtype: str


class SharedArrays:
    """A tree of arrays in memory that other processes can map.

    The memory has no name: it is a file descriptor, handed over through a socket, and
    it is gone when the last process that holds it ends, however it ends. Pages that
    nobody writes to take no memory.

    Args:
        descriptor: Integer, file descriptor of the memory. Belongs to this object.
        layout: What `SharedArrays.layout` of the other side is.

    Attributes:
        tree: The arrays.
        descriptor: Integer.
        layout: Plain data to send along with the descriptor.

    Example:

    ```python
    shared = SharedArrays.like({"rewards": np.zeros((128, 4), np.float32)})
    shared.tree["rewards"][0] = 1.0
    ```
    """

    descriptor = None

    def __init__(self, descriptor, layout):
        self.descriptor = descriptor
        self.layout = layout
        places = optree.tree_leaves(layout)
        size = max((_end(place) for place in places), default=0)
        memory = mmap.mmap(descriptor, max(size, 1))
        self.tree = optree.tree_map(lambda place: _array(memory, place), layout)

    @classmethod
    def like(cls, tree):
        """Makes zeros with the shapes and dtypes of a tree of arrays."""
        layout, size = lay_out(tree)
        descriptor = unnamed_memory()
        os.ftruncate(descriptor, max(size, 1))
        return cls(descriptor, layout)

    def wrote(self, *paths, within=None):
        """Says what this side has written. The other one maps it, and sees it already.

        Args:
            *paths: As for `kerasrl.workers.mirrored_arrays.MirroredArrays.wrote`.
            within: As there.
        """

    @contextlib.contextmanager
    def locked(self, exclusive):
        """A context that other processes do not enter meanwhile.

        Nobody spins, and the lock of a process that is killed is gone with it.

        Args:
            exclusive: Whether none may; else those that read may.
        """
        # Of the process, not of the descriptor: two that share it exclude each other.
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)

    def close(self):
        """Gives the descriptor back. The arrays remain usable while referred to."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __del__(self):
        self.close()


def lay_out(tree):
    """Says where arrays like those of a tree lie in memory.

    Returns:
        Tuple of the layout, a tree of places, and the number of bytes.
    """
    end = 0

    def place(array):
        nonlocal end
        array = np.asarray(array)
        if array.dtype.hasobject:
            raise TypeError(
                "Only numbers can be shared between processes. Received an array "
                f"of dtype {array.dtype}, shape {array.shape}."
            )
        found = _Place(end, array.shape, array.dtype.str)
        end = -(-_end(found) // _ALIGNMENT) * _ALIGNMENT
        return found

    return optree.tree_map(place, tree), end


def copy_into(target, source):
    """Writes the leaves of one tree of arrays into those of another."""
    if isinstance(target, np.ndarray):
        np.copyto(target, source)
        return
    leaves, structure = optree.tree_flatten(target)
    for leaf, value in zip(leaves, structure.flatten_up_to(source), strict=True):
        np.copyto(leaf, value)


def _end(place):
    count = int(np.prod(place.shape, dtype=np.int64))
    return place.offset + count * np.dtype(place.dtype).itemsize


def _array(memory, place):
    count = int(np.prod(place.shape, dtype=np.int64))
    if not count:
        return np.zeros(place.shape, place.dtype)
    flat = np.frombuffer(memory, place.dtype, count, place.offset)
    return flat.reshape(place.shape)


def unnamed_memory(label="kerasrl"):
    """Returns a file descriptor of memory that grows as it is written to.

    Args:
        label: String that `/proc` shows; nothing can be opened by it.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(label)
    # Where there is no such call (macOS), a file without a name serves as well.
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
