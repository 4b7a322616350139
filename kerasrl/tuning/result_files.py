"""Files of results of a trial that goes on from an earlier moment."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

from kerasrl.tuning.trial import Trial, read_results, write_text


def keep_rows(
    trial: Trial, is_before: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Remove the results after the moment that a trial goes on from.

    They will come again. Those from before it took over another's weights stay.

    Args:
        trial: `Trial`.
        is_before: function of a row that says whether it is not later than that moment.

    Returns:
        list of dicts, the rows that are left.
    """
    rows = read_results(trial.directory)
    kept = int(trial.lineage[-1].get("rows", 0)) if trial.lineage else 0
    while len(rows) > kept and not is_before(rows[-1]):
        rows.pop()
    path = trial.directory / "result.json"
    if path.exists():
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    path = trial.directory / "progress.csv"
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            table = list(csv.reader(file))[: len(rows) + 1]
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerows(table)
        if rows:
            write_text(path, text.getvalue())
        else:
            path.unlink()
    trial.results = rows
    return rows
