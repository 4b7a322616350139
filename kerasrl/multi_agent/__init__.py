"""Several agents in one environment: how they come in, act, and learn.

Environments follow one contract, `MultiAgentEnv`; PettingZoo's and RLlib's are adapted
to it. Trajectories are kept by episode and agent, however agents take turns, die and
are born. This room stands on `agents` and `training`, and neither knows of it.
"""

from kerasrl.agents import load
from kerasrl.multi_agent.agent import MultiAgent
from kerasrl.multi_agent.arena import MultiAgentEpisode
from kerasrl.multi_agent.env import MultiAgentEnv, MultiEnvironments, as_multi_agent
from kerasrl.multi_agent.games import (
    MATRICES,
    MatrixGame,
    RockPaperScissors,
    TicTacToe,
    TwoStep,
    perfect_move,
)
from kerasrl.multi_agent.policies import RandomPolicy
from kerasrl.multi_agent.qmix import QMIX
from kerasrl.multi_agent.self_play import Opponents, SelfPlay, either_side
from kerasrl.multi_agent.source import MultiAgentRollout
from kerasrl.multi_agent.team_env import TeamEnv
from kerasrl.multi_agent.team_network import TeamNetwork
from kerasrl.multi_agent.vdn import VDN
from kerasrl.multi_agent.worlds import MultiAgentPendulum, Pursuit
from kerasrl.multi_agent.wrappers import make_multi_agent, with_agent_groups

#: Environments by their names.
ENVIRONMENTS = {
    "matrix_game": MatrixGame,
    "multi_agent_pendulum": MultiAgentPendulum,
    "pursuit": Pursuit,
    "rock_paper_scissors": RockPaperScissors,
    "tic_tac_toe": TicTacToe,
    "two_step": TwoStep,
}

__all__ = [
    "ENVIRONMENTS",
    "MATRICES",
    "QMIX",
    "VDN",
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
    "load",
    "make_multi_agent",
    "perfect_move",
    "with_agent_groups",
]
