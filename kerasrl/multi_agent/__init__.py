"""Several agents in one environment: how they come in, act, and learn.

Environments follow one contract, `MultiAgentEnv`; PettingZoo's and RLlib's are adapted
to it. Trajectories are kept by episode and agent, however agents take turns, die and
are born. This room stands on `agents` and `training`, and neither knows of it.

Public names are resolved on first use: what plays, in worker processes too, imports
neither Keras nor TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasrl.multi_agent.agent import MultiAgent
    from kerasrl.multi_agent.arena import MultiAgentEpisode
    from kerasrl.multi_agent.central import with_central_state
    from kerasrl.multi_agent.central_critic import CentralCritic
    from kerasrl.multi_agent.env import MultiAgentEnv, MultiEnvironments, as_multi_agent
    from kerasrl.multi_agent.games import (
        MATRICES,
        MatrixGame,
        RockPaperScissors,
        TicTacToe,
        TwoStep,
        perfect_move,
    )
    from kerasrl.multi_agent.loading import load
    from kerasrl.multi_agent.qmix import QMIX
    from kerasrl.multi_agent.rules import RandomPolicy, either_side
    from kerasrl.multi_agent.self_play import Opponents, SelfPlay
    from kerasrl.multi_agent.source import MultiAgentRollout
    from kerasrl.multi_agent.splitting import from_custom_options, split_tuple
    from kerasrl.multi_agent.team_env import TeamEnv
    from kerasrl.multi_agent.team_network import TeamNetwork
    from kerasrl.multi_agent.vdn import VDN
    from kerasrl.multi_agent.worlds import MultiAgentPendulum, Pursuit
    from kerasrl.multi_agent.wrappers import (
        make_multi_agent,
        with_action_masks,
        with_agent_groups,
    )

_PUBLIC = {
    "MATRICES": "games",
    "CentralCritic": "central_critic",
    "QMIX": "qmix",
    "VDN": "vdn",
    "MatrixGame": "games",
    "MultiAgent": "agent",
    "MultiAgentEnv": "env",
    "MultiAgentEpisode": "arena",
    "MultiAgentPendulum": "worlds",
    "MultiAgentRollout": "source",
    "MultiEnvironments": "env",
    "Opponents": "self_play",
    "Pursuit": "worlds",
    "RandomPolicy": "rules",
    "RockPaperScissors": "games",
    "SelfPlay": "self_play",
    "TeamEnv": "team_env",
    "TeamNetwork": "team_network",
    "TicTacToe": "games",
    "TwoStep": "games",
    "as_multi_agent": "env",
    "either_side": "rules",
    "from_custom_options": "splitting",
    "load": "loading",
    "make_multi_agent": "wrappers",
    "perfect_move": "games",
    "split_tuple": "splitting",
    "with_action_masks": "wrappers",
    "with_agent_groups": "wrappers",
    "with_central_state": "central",
}
#: Environments by their names, and the names of their classes here.
ENVIRONMENTS = {
    "matrix_game": "MatrixGame",
    "multi_agent_pendulum": "MultiAgentPendulum",
    "pursuit": "Pursuit",
    "rock_paper_scissors": "RockPaperScissors",
    "tic_tac_toe": "TicTacToe",
    "two_step": "TwoStep",
}

__all__ = [
    "ENVIRONMENTS",
    "MATRICES",
    "QMIX",
    "VDN",
    "CentralCritic",
    "MatrixGame",
    "MultiAgent",
    "MultiAgentEnv",
    "MultiAgentEpisode",
    "MultiAgentPendulum",
    "MultiAgentRollout",
    "MultiEnvironments",
    "Opponents",
    "Pursuit",
    "RandomPolicy",
    "TeamEnv",
    "TeamNetwork",
    "RockPaperScissors",
    "SelfPlay",
    "TicTacToe",
    "TwoStep",
    "as_multi_agent",
    "either_side",
    "from_custom_options",
    "load",
    "make_multi_agent",
    "perfect_move",
    "split_tuple",
    "with_action_masks",
    "with_agent_groups",
    "with_central_state",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module = importlib.import_module(f"kerasrl.multi_agent.{_PUBLIC[name]}")
        return getattr(module, name)
    raise AttributeError(f"module 'kerasrl.multi_agent' has no attribute {name!r}")
