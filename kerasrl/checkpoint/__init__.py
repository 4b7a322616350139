"""Checkpoints: one zip file without pickle, written atomically.

| member | content |
|---|---|
| `config.json` | schema, versions, class and arguments of the agent, optimizer |
| `state.json` | counters, statistics of episodes, states of random generators |
| `arrays/NNNNN.npy` | variables of the policy, the optimizer and the agent |
| `replay/NNNNN.npy` | arrays of the replay buffer, if there is one |

Loading runs no code from the file: classes are looked up among those already
registered with Keras, arrays are read without pickle. Nothing is read that is larger
than the file, nothing is built that is larger than its arrays, and everything is
compared with what the agent would have written. Whatever is wrong raises a
`CheckpointError`.

`archive` reads and writes the file, `safety` looks at configurations before anything is
made of them, `contract` compares state and arrays with those of the agent. Classes are
known here by their registered names alone: no agent is imported, nor anything else of
kerasrl.
"""

from kerasrl.checkpoint.archive import SCHEMA, CheckpointError, write_atomically
from kerasrl.checkpoint.configs import deserialize_config, serialize_config
from kerasrl.checkpoint.weights import variables

__all__ = [
    "SCHEMA",
    "CheckpointError",
    "deserialize_config",
    "serialize_config",
    "variables",
    "write_atomically",
]
