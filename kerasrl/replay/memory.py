"""Storage in main memory or on disk, refused before it does not fit."""

import pathlib
import shutil
import tempfile
import weakref

import numpy as np

_CGROUP_FILES = (
    # Limit and usage, version 2 and version 1.
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def count_bytes(layout):
    """Bytes that the arrays of a layout take.

    Args:
        layout: Dict from a name to the pair `(shape, dtype)` of an array.

    Returns:
        Integer.

    Example:

    ```python
    count_bytes({"rewards": ((100,), "float32")})  # 400
    ```
    """
    return sum(
        int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        for shape, dtype in layout.values()
    )


def allocate(layout, directory=None, other_layout=None, reserved_bytes=0):
    """Makes arrays of zeros, in main memory or in files of a directory.

    Args:
        layout: Dict from a name to the pair `(shape, dtype)` of an array.
        directory: Path of a directory, made if missing, in which the arrays become
            memory-mapped files; `None` for main memory. The files are scratch space:
            they lie in a new folder of their own and are removed with the arrays.
        other_layout: Dict as `layout`, arrays that go to main memory in any case.
        reserved_bytes: Integer, main memory that will be taken besides.

    Returns:
        Dict from the names of both layouts to arrays.

    Raises:
        MemoryError: The arrays need more than is available.

    Example:

    ```python
    allocate({"rewards": ((100,), "float32")})["rewards"].shape  # (100,)
    ```
    """
    other_layout = other_layout or {}
    in_memory = count_bytes(other_layout) + reserved_bytes
    if directory is None:
        in_memory += count_bytes(layout)
    _check(in_memory, available_memory(), "of main memory", directory)
    arrays = {}
    if directory is not None:
        pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(directory).free
        _check(count_bytes(layout), free, f"of disk space in {directory}", directory)
        arrays = _map_files(layout, directory)
        layout = {}
    for name, (shape, dtype) in {**layout, **other_layout}.items():
        arrays[name] = np.zeros(shape, dtype)
    return arrays


def check_together(parts):
    """Raises unless several buffers, of which nothing is written yet, fit together.

    Args:
        parts: List of tuples `(in_memory, in_files, directory)`: bytes that a buffer
            takes of main memory and of files, and the directory of these or `None`.

    Raises:
        MemoryError: Together they need more than is available.
    """
    count = len(parts)
    in_memory, in_files = (sum(part[place] for part in parts) for place in (0, 1))
    directory = parts[0][2]
    _check(in_memory, available_memory(), "of main memory", directory, count)
    if directory is not None:
        free = shutil.disk_usage(directory).free
        where = f"of disk space in {directory}"
        _check(in_files, free, where, directory, count)


def available_memory():
    """Bytes of main memory that this process may still take.

    Returns:
        Integer, the smaller of what the machine and the control group (container)
        have left; `None` where neither says so.
    """
    known = [_machine_memory()]
    for limit_file, usage_file in _CGROUP_FILES:
        limit, usage = _read_number(limit_file), _read_number(usage_file)
        if limit is not None and usage is not None:
            known.append(max(0, limit - usage))
    return min((number for number in known if number is not None), default=None)


def _machine_memory():
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _read_number(path):
    try:
        return int(pathlib.Path(path).read_text())
    except (OSError, ValueError):  # No such file, or "max".
        return None


def _check(needed, available, where, directory, count=1):
    if available is None or needed <= available:
        return
    fixes = (
        "Make `capacity` (`buffer_size` of an agent) smaller, or pass `frame_stack` if "
        "the observations are stacks of frames, to store each frame once"
    )
    if directory is None:
        fixes += ", or `directory`, to keep the rows in files"
    else:
        fixes += ", or another `directory`"
    who = "The replay buffer needs"
    if count > 1:
        who = f"The {count} parts of the replay buffer need"
    raise MemoryError(
        f"{who} {_readable(needed)} {where}. Available: "
        f"{_readable(available)}. {fixes}."
    )


def _readable(count):
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            break
        count, unit = count / 1000, "TB"
    else:
        unit = "TB"
    return f"{count} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"


def _map_files(layout, directory):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="replay-", dir=directory))
    arrays = {}
    for index, (name, (shape, dtype)) in enumerate(layout.items()):
        arrays[name] = np.lib.format.open_memmap(
            folder / f"{index}.npy", mode="w+", dtype=np.dtype(dtype), shape=shape
        )
    if arrays:
        # Each array outlives the folder on systems that keep mapped files.
        owner = next(iter(arrays.values()))
        weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return arrays
