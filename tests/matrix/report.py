"""Tries every two features together, and writes what came of it.

    python tests/matrix/report.py            all trials: minutes on two cores
    python tests/matrix/report.py --render   the page again, from the last trials

Writes `docs/features.json`, what was tried, and `docs/features.md`, the page of that.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import pathlib
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import cells

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "features.json"
PAGE = ROOT / "docs" / "features.md"
COLUMNS = [
    name
    for names in cells.FEATURES.values()
    for name in names
    if name not in cells.PLAIN
]


def two_devices():
    """Makes two devices of the CPU, for `MirroredStrategy`."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )


def plan():
    """Everything to try: triples of algorithm, features, and whether it must fail."""
    trials = [
        (algorithm, features, False)
        for algorithm in cells.AGENTS
        for features in cells.covering(algorithm)
    ]
    for algorithms, together, _, _ in cells.EXCEPTIONS:
        for algorithm in algorithms:
            if not any(
                others < together and algorithm in who
                for who, others, _, _ in cells.EXCEPTIONS
            ):
                trials.append((algorithm, _with(algorithm, together), True))
    return trials


def _with(algorithm, together):
    """A row of features with some of them, which as little as possible else forbids."""
    rows = [
        row for row in itertools.product(*cells.FEATURES.values()) if together <= {*row}
    ]
    return min(
        rows,
        key=lambda row: sum(
            algorithm in who and others <= {*row}
            for who, others, _, _ in cells.EXCEPTIONS
        ),
    )


def attempt(trial):
    """Tries one of them. Returns `"yes"`, `"refused"` or what went wrong."""
    algorithm, features, must_fail = trial
    start = time.perf_counter()
    try:
        (cells.refuse if must_fail else cells.try_out)(algorithm, features)
        outcome = "refused" if must_fail else "yes"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"[:300]
    seconds = time.perf_counter() - start
    print(
        f"{algorithm:8}{' + '.join(features):100}{outcome} {seconds:.0f} s", flush=True
    )
    return outcome


def run(num_processes, missing):
    """Tries all of them, or what was not tried with success, and writes outcomes."""
    outcomes = {}
    if missing and RESULTS.exists():
        for result in read():
            if result["outcome"] in ("yes", "refused"):
                outcomes[result["algorithm"], *result["features"]] = result["outcome"]
    trials = plan()
    left = [trial for trial in trials if (trial[0], *trial[1]) not in outcomes]
    context = multiprocessing.get_context("spawn")
    # What TensorFlow has compiled stays in a process: none lives long.
    with context.Pool(num_processes, two_devices, maxtasksperchild=12) as pool:
        for trial, outcome in zip(left, pool.imap(attempt, left), strict=True):
            outcomes[trial[0], *trial[1]] = outcome
            write(trials, outcomes)


def write(trials, outcomes):
    """Writes what is known of all trials, a line each."""
    lines = [
        json.dumps({"algorithm": a, "features": f, "outcome": outcomes[a, *f]})
        for a, f, _ in trials
        if (a, *f) in outcomes
    ]
    RESULTS.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def read():
    """The outcomes that were written last, a list of dicts."""
    return json.loads(RESULTS.read_text())


def cell(results, algorithm, first, second):
    """`"yes"`, `"no"`, or why the two do not go together and whether they might."""
    found = cells.exception_of_pair(algorithm, first, second)
    if found is not None:
        return found
    for result in results:
        if (
            result["algorithm"] == algorithm
            and {first, second} <= {*result["features"]}
            and result["outcome"] == "yes"
        ):
            return "yes"
    return "no"


def pairs():
    """Pairs of columns that may meet, and each column with itself."""
    for first, second in itertools.combinations_with_replacement(COLUMNS, 2):
        alike = any({first, second} <= {*names} for names in cells.FEATURES.values())
        if first == second or not alike:
            yield first, second


def count(results, algorithms):
    """How many cells of algorithms say yes, and how many mean something."""
    every = [
        cell(results, algorithm, *pair) for algorithm in algorithms for pair in pairs()
    ]
    meaningful = [each for each in every if isinstance(each, str) or each[1]]
    return meaningful.count("yes"), len(meaningful)


def render(results):
    """The page, as Markdown."""
    acting = [name for name in cells.AGENTS if name not in cells.FROM_DATA]
    yes, meaningful = count(results, acting)
    yes_of_data, meaningful_of_data = count(results, cells.FROM_DATA)
    lines = [
        "# What works with what",
        "",
        "Made by `make matrix`, which trains an agent with every two of these at",
        "once: a few steps with a small network, then a checkpoint, of which a second",
        "agent is loaded; both train on, and must end with the same weights, bit by",
        "bit. So each `yes` is one of exact resume without pickle, too. A cell on the",
        "diagonal is the feature by itself. What is said not to go together was tried",
        "as well, and is an error that says so.",
        "",
        f"**{yes} of {meaningful}** cells that mean something say yes, and of those",
        f"that learn from data **{yes_of_data} of {meaningful_of_data}**: most have no "
        "memory.",
        "",
    ]
    groups = {}
    for algorithm in cells.AGENTS:
        table = tuple(cell(results, algorithm, *pair) for pair in pairs())
        groups.setdefault(table, []).append(algorithm)
    for table, algorithms in groups.items():
        lines += _table(dict(zip(pairs(), table, strict=True)), algorithms)
    return "\n".join(lines)


def _table(values, algorithms):
    reasons = []
    lines = [f"## {', '.join(algorithms)}", ""]
    left_out = [name for name in COLUMNS if not isinstance(values[name, name], str)]
    columns = [name for name in COLUMNS if name not in left_out]
    lines.append("| | " + " | ".join(columns) + " |")
    lines.append("| --- " * (len(columns) + 1) + "|")
    for row in columns:
        texts = []
        for column in columns:
            value = values.get((column, row), "")
            if not isinstance(value, str):
                if value[0] not in reasons:
                    reasons.append(value[0])
                value = f"- ({reasons.index(value[0]) + 1})"
            texts.append(value)
        lines.append(f"| {row} | " + " | ".join(texts).rstrip() + " |")
    lines.append("")
    for number, reason in enumerate(reasons, 1):
        lines.append(f"({number}) {reason}.")
    if reasons:
        lines.append("")
    for name in left_out:
        lines.append(f"- no {name}: {values[name, name][0]}.")
    if left_out:
        lines.append("")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--render", action="store_true", help="write the page only")
    parser.add_argument(
        "--missing", action="store_true", help="try what has no good outcome yet"
    )
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    if not arguments.render:
        run(arguments.processes, arguments.missing)
    results = read()
    PAGE.write_text(render(results))
    failed = [r for r in results if r["outcome"] not in ("yes", "refused")]
    for each in failed:
        print(each)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
