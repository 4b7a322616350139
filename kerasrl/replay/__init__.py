"""How experience is kept for learning from it again. NumPy only.

Rollouts go in, batches come out: `ReplayBuffer` draws transitions uniformly,
`PrioritizedReplayBuffer` by their errors, `HindsightReplayBuffer` with goals that were
achieved, `SequenceReplayBuffer` draws sequences with recurrent state. `ShardedReplay`
draws from several of them, one for each asynchronous worker. All of them take
nested observations and actions, several environments, stacks of frames stored once, and
files in place of main memory. What policies saw of the step before, what else acting
returned and what environments said is kept where it is asked for.
"""

from kerasrl.replay.first_errors import first_errors
from kerasrl.replay.hindsight import GOAL_STRATEGIES, HindsightReplayBuffer
from kerasrl.replay.replay_buffer import PrioritizedReplayBuffer, ReplayBuffer
from kerasrl.replay.samplers import global_weights
from kerasrl.replay.sequence_replay_buffer import SequenceReplayBuffer
from kerasrl.replay.sharded import ShardedReplay

__all__ = [
    "GOAL_STRATEGIES",
    "HindsightReplayBuffer",
    "PrioritizedReplayBuffer",
    "ReplayBuffer",
    "SequenceReplayBuffer",
    "ShardedReplay",
    "first_errors",
    "global_weights",
]
