"""How experience is kept for learning from it again. NumPy only.

Rollouts go in, batches come out: `ReplayBuffer` draws transitions uniformly,
`PrioritizedReplayBuffer` by their errors, `SequenceReplayBuffer` draws sequences with
recurrent state. All of them take n-step sums or sequences, nested observations, stacks
of frames stored once, several environments, and files in place of main memory.
"""

from kerasrl.replay.replay_buffer import PrioritizedReplayBuffer, ReplayBuffer

__all__ = ["PrioritizedReplayBuffer", "ReplayBuffer"]
