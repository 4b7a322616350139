"""Keras callbacks for what only reinforcement learning needs.

Every stock `keras.callbacks.Callback` works in `agent.fit`; these add episodes,
rollouts, environment steps and whole-agent checkpoints.

Order matters a little, as in Keras: callbacks run in the order of the list, and all of
them receive the same `logs` dictionary at the end of an epoch. A callback that adds to
it (`PeriodicEvaluation` adds `evaluation_*`, `Curriculum` adds `curriculum_phase`) goes
before those that read it. `fit`'s own `History` comes last and sees everything.
"""

from kerasrl.callbacks.agent_checkpoint import AgentCheckpoint
from kerasrl.callbacks.callback import Callback
from kerasrl.callbacks.curiosity import Curiosity
from kerasrl.callbacks.curriculum import Curriculum
from kerasrl.callbacks.env_step_tensorboard import EnvStepTensorBoard
from kerasrl.callbacks.periodic_evaluation import PeriodicEvaluation
from kerasrl.callbacks.reward_scale_warning import RewardScaleWarning
from kerasrl.callbacks.run_logger import RunLogger
from kerasrl.callbacks.stop_on import StopOn
from kerasrl.callbacks.video_recorder import VideoRecorder

__all__ = [
    "AgentCheckpoint",
    "Callback",
    "Curiosity",
    "Curriculum",
    "EnvStepTensorBoard",
    "PeriodicEvaluation",
    "RewardScaleWarning",
    "RunLogger",
    "StopOn",
    "VideoRecorder",
]
