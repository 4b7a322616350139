"""Loading whatever a file may hold, with several agents in it too."""

from kerasrl.agents import load
from kerasrl.multi_agent import agent, central_critic, qmix, self_play, vdn

#: What is registered by being imported.
_CLASSES = (
    agent.MultiAgent,
    central_critic.CentralCritic,
    qmix.QMIX,
    self_play.Opponents,
    vdn.VDN,
)

__all__ = ["load"]
