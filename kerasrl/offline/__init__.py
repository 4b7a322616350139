"""Data sets: episodes that were recorded, by whomever, to learn from and to judge by.

Written while training, evaluating or by a loop of one's own, read from here and from
other libraries' files. No TensorFlow is imported until it is asked for, and nothing is
ever unpickled.
"""

import importlib
from typing import Any

from kerasrl.offline.collecting import RecordEpisodes, collect
from kerasrl.offline.converting import convert, merge
from kerasrl.offline.dataset import Dataset
from kerasrl.offline.episodes import Episode
from kerasrl.offline.loading import from_arrays, from_episodes, load
from kerasrl.offline.reader import Reader
from kerasrl.offline.shards import DamagedFile
from kerasrl.offline.writer import Writer

__all__ = [
    "DamagedFile",
    "Dataset",
    "Episode",
    "Reader",
    "RecordEpisodes",
    "Writer",
    "collect",
    "convert",
    "estimate",
    "from_arrays",
    "from_episodes",
    "load",
    "merge",
]


def __getattr__(name: str) -> Any:
    if name == "estimate":
        # It stands on agents, and imports TensorFlow.
        return importlib.import_module("kerasrl.estimates").estimate
    raise AttributeError(f"module 'kerasrl.offline' has no attribute {name!r}")
