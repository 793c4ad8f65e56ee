"""The actor classes of the tiers.

The tiers do not import each other: the code that starts a grid passes these classes to the parents, which start the
actors.
"""

from __future__ import annotations

from raygrid.leader.actor import LeaderActor
from raygrid.node.actor import NodeAgentActor
from raygrid.transport.actors import ActorClasses

ACTORS = ActorClasses(LeaderActor, NodeAgentActor)
