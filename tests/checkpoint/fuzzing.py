"""Damages checkpoints at random and says what becomes of them.

Run: python tests/checkpoint/fuzzing.py --count 10000
"""

import argparse
import collections
import io
import json
import pathlib
import random
import resource
import tempfile
import time
import zipfile

import numpy as np

import kerasrl
from kerasrl.checkpoint import CheckpointError, variables

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FILES = ("ppo_schema1", "dqn_schema1")
#: Values of every type, and of sizes that only an attacker writes.
VALUES = (
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**53 + 1, 2**63, 10**30, -(2**40)),
    *(0.0, 0.5, -1.5, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", "x", "float32", "relu", "kerasrl>PPO", "os:system", "../..", "é\ud7ff"),
    *([], [0], [[1]], [1e9] * 3, [True], {}, {"a": 1}, {"class_name": "Dense"}),
)
DTYPES = (
    "<f4",
    ">f4",
    "<f8",
    "<f2",
    "<i4",
    "<i8",
    "|u1",
    "|b1",
    "<c8",
    "<M8[s]",
    "<U3",
)


def read_members(content):
    """The members of a file, a list of pairs of a name and bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def write_members(members, compress=zipfile.ZIP_STORED):
    """A file of members, with right checksums."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compress) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def mutate(content, rng):
    """Damages the bytes of a file.

    Args:
        content: Bytes of a good file.
        rng: `random.Random`.

    Returns:
        Pair of the kind of damage, a text, and the bytes of the damaged file.
    """
    kind = rng.choice(list(MUTATIONS))
    return kind, MUTATIONS[kind](content, rng)


def _flip(content, rng):
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def _cut(content, rng):
    return content[: rng.randrange(len(content))]


def _of_a_member(change, choose):
    def mutation(content, rng):
        members = read_members(content)
        index = rng.choice([i for i, (name, _) in enumerate(members) if choose(name)])
        name, old = members[index]
        members[index] = (name, change(old, rng))
        return write_members(members)

    return mutation


def _change_json(content, rng):
    data = json.loads(content)
    places = []

    def visit(value):
        if isinstance(value, (dict, list)) and value:
            for key in value if isinstance(value, dict) else range(len(value)):
                places.append((value, key))
                visit(value[key])

    visit(data)
    parent, key = rng.choice(places)
    action = rng.choice(("replace", "replace", "replace", "nudge", "remove", "copy"))
    if action == "remove":
        del parent[key]
    elif action == "copy":
        other, other_key = rng.choice(places)
        parent[key] = other[other_key]
    elif action == "nudge" and type(parent[key]) in (int, float):
        parent[key] += rng.choice((-1, 1, 2**20, 0.25))
    else:
        parent[key] = rng.choice(VALUES)
    try:
        return json.dumps(data).encode("utf-8", "surrogatepass")
    except (RecursionError, ValueError):  # A copy of a part into itself.
        return content


def _nest_json(content, rng):
    depth = rng.choice((50, 3_000, 200_000))
    return content.rstrip()[:-1] + b', "z": ' + b"[" * depth + b"]" * depth + b"}"


def _change_array(content, rng):
    array = np.load(io.BytesIO(content)).copy()
    action = rng.choice(("dtype", "shape", "value", "value", "nan", "transpose"))
    if action == "dtype":
        array = array.astype(rng.choice(DTYPES))
    elif action == "shape":
        array = np.resize(
            array, rng.choice(((), (0,), (3,), (2, 2), (1, *array.shape)))
        )
    elif action == "transpose":
        array = array.T
    elif array.size:
        value = rng.choice((0, 1, 2, 255, -1, 1e30, 2**40, rng.gauss(0, 1)))
        if action == "nan":
            value = rng.choice((float("nan"), float("inf"), -float("inf")))
        with np.errstate(all="ignore"):
            array.flat[rng.randrange(array.size)] = np.float64(value).astype(
                array.dtype
            )
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _change_header(content, rng):
    """Claims another shape than there are bytes for."""
    stream = io.BytesIO()
    array = np.load(io.BytesIO(content))
    shape = rng.choice(((10**12,), (2**31, 2**31, 2**31), (-1,), (0, 10**9), (7,)))
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + array.tobytes()


def _rearrange(content, rng):
    members = read_members(content)
    one, other = rng.randrange(len(members)), rng.randrange(len(members))
    action = rng.choice(("remove", "rename", "swap", "add", "deflate"))
    if action == "remove":
        del members[one]
    elif action == "rename":
        name = rng.choice(("../x", "arrays/00000.npy", "arrays/99999.npy", "a/"))
        members[one] = (name, members[one][1])
    elif action == "swap":
        (a, left), (b, right) = members[one], members[other]
        members[one], members[other] = (a, right), (b, left)
    elif action == "add":
        members.append((rng.choice(("pickle.pkl", "arrays/1.npy")), b"\0" * 100))
    else:
        return write_members(members, zipfile.ZIP_DEFLATED)
    return write_members(members)


MUTATIONS = {
    "bytes of the file": _flip,
    "end of the file": _cut,
    "members": _rearrange,
    "bytes of a member": _of_a_member(_flip, lambda name: True),
    "config": _of_a_member(_change_json, lambda name: name == "config.json"),
    "state": _of_a_member(_change_json, lambda name: name == "state.json"),
    "depth": _of_a_member(_nest_json, lambda name: name.endswith(".json")),
    "array": _of_a_member(_change_array, lambda name: name.endswith(".npy")),
    "header": _of_a_member(_change_header, lambda name: name.endswith(".npy")),
}
#: What Keras does not look at, or repeats: where a class was defined, and how a policy
#: was compiled, which the agent says anew.
_UNUSED = {"module", "registered_name", "compile_config", "name"}


def outcome(path, acts=True):
    """What loading a file comes to.

    Args:
        path: `pathlib.Path` of the file.
        acts: Whether what was loaded must act, too.

    Returns:
        `"refused"`, or `"as in the file"` if the agent holds what the file says.

    Raises:
        AssertionError: The agent holds something else.
        Exception: Anything else than a `CheckpointError` was raised.
    """
    try:
        agent = kerasrl.load(path)
    except CheckpointError as error:
        assert str(path) in str(error) and len(str(error)) < 1500, str(error)
        return "refused"
    members = dict(read_members(path.read_bytes()))
    config, state = (json.loads(members[f"{n}.json"]) for n in ("config", "state"))
    for index, (name, variable) in enumerate(variables(agent)):
        saved = np.load(io.BytesIO(members[f"arrays/{index:05d}.npy"]))
        np.testing.assert_array_equal(np.asarray(variable), saved, err_msg=name)
    own_state = json.loads(json.dumps(agent.get_state()))
    names = config.get("replay", [])
    if names:
        arrays = agent.get_arrays()
        assert sorted(arrays) == sorted(names)
        for index, name in enumerate(names):
            saved = np.load(io.BytesIO(members[f"replay/{index:05d}.npy"]))
            np.testing.assert_array_equal(arrays[name], saved, err_msg=name)
    else:
        for key in ("buffer", "num_envs"):
            state.pop(key, None)
    # Later versions have more to say.
    assert {key: own_state.get(key) for key in state} == state
    own_config = json.loads(json.dumps(agent.get_config()))
    assert_says(own_config, config["config"], "config")
    if acts:
        agent.predict(np.zeros((2, *agent.policy.observation_space.shape), np.float32))
    return "as in the file"


def assert_says(own, saved, where):
    """An agent says what the file says, where the file says anything."""
    if isinstance(saved, dict) and isinstance(own, dict):
        for key, value in saved.items():
            if key not in _UNUSED:
                assert key in own, f"{where}: {key} is lost"
                assert_says(own[key], value, f"{where}.{key}")
    elif isinstance(saved, list) and isinstance(own, list):
        assert len(own) == len(saved), where
        for index, pair in enumerate(zip(own, saved, strict=True)):
            assert_says(*pair, f"{where}[{index}]")
    else:
        assert own == saved or own != own, f"{where}: {saved!r} became {own!r}"


def main():
    """Damages files and prints a table of outcomes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()

    contents = [(GOLDEN / f"{name}.kerasrl").read_bytes() for name in FILES]
    table, slowest, start = collections.Counter(), 0.0, time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "damaged.kerasrl"
        for name in FILES:  # What importing and the first build take.
            path.write_bytes((GOLDEN / f"{name}.kerasrl").read_bytes())
            assert outcome(path) == "as in the file"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        for number in range(args.first, args.first + args.count):
            rng = random.Random(number)
            kind, content = mutate(contents[number % len(contents)], rng)
            path.write_bytes(content)
            began = time.perf_counter()
            try:
                result = outcome(path, acts=number % 8 == 0)
            except Exception as error:
                result = f"WRONG {type(error).__name__}"
                print(f"{number} {kind}: {type(error).__name__}: {error!s:.300}")
            slowest = max(slowest, time.perf_counter() - began)
            table[kind, result] += 1
            done = number - args.first + 1
            if done % 500 == 0 or done == args.count:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(
                    f"{done} files, {time.perf_counter() - start:.0f} s, slowest "
                    f"{slowest:.1f} s, peak {peak:.0f} MB ({before:.0f} MB before)",
                    flush=True,
                )
    for (kind, result), number in sorted(table.items()):
        print(f"{kind:20} {result:20} {number}")


if __name__ == "__main__":
    main()
