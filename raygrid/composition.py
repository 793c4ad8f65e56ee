"""Puts the tiers of a grid together: which actor class serves each tier.

No tier imports another; what starts a grid passes these classes to the parents, which make the actors.
"""

from __future__ import annotations

from raygrid.leader.actor import LeaderActor
from raygrid.node.actor import NodeAgentActor
from raygrid.transport.actors import ActorClasses

ACTORS = ActorClasses(LeaderActor, NodeAgentActor)
