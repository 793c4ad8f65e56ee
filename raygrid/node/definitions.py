"""What a node runs for a job: the definition that the job was submitted with, within the current limits.

Leaders send each definition once, with the first order that needs it. An attempt whose definition is missing (the agent
was restarted, or dropped it) waits for some time. The node's next reply names it as missing, and a leader sends it. For
a definition that the job store has lost, the leader sends only the digest, and attempts that need it end.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from raygrid.errors import DefinitionLostError, UnavailableError
from raygrid.models import Definition, JobSpec
from raygrid.settings.definition import define, pricer_of
from raygrid.settings.pricer import Pricer

WAIT_S = 20.0  # longer than a change of leader takes
MOST_DEFINITIONS = 256


class NodeDefinitions:
    """The definitions of one node; thread-safe.

    `is_missing` is called when an attempt waits for a definition, so that a leader is informed soon.
    """

    def __init__(self, pricers: Mapping[str, Pricer], is_missing: Callable[[], None] = lambda: None) -> None:
        self._pricers = pricers
        self._is_missing = is_missing
        self._known: OrderedDict[str, Definition] = OrderedDict()  # the last used one is at the end
        self._ready: dict[tuple[str, str], Pricer] = {}  # by the pricer's name and the definition's digest
        self._configured: dict[str, tuple[Pricer, str]] = {}  # configured pricers that were asked for, with digests
        self._lacks: dict[str, None] = {}
        self._losses: dict[str, int] = {}  # by digest: how often a leader has reported it lost
        self._changed = threading.Condition()
        self._closed = False

    @property
    def lacks(self) -> tuple[str, ...]:
        """Digests of missing definitions that attempts need."""
        return tuple(self._lacks)

    def follow(self, pricers: Mapping[str, Pricer]) -> None:
        """Apply newer settings: their limits hold for attempts that begin later."""
        with self._changed:
            self._pricers = pricers
            self._ready = {}

    def close(self) -> None:
        """End all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def put(self, definitions: Iterable[Definition]) -> frozenset[str]:
        """Add definitions from a leader; return the digests of those that the job store has lost and the node lacks."""
        lost: set[str] = set()
        with self._changed:
            for each in definitions:
                self._lacks.pop(each.digest, None)
                if not each.is_lost:
                    self._known[each.digest] = each
                    self._known.move_to_end(each.digest)
                    self._losses.pop(each.digest, None)
                elif each.digest not in self._known:
                    self._losses[each.digest] = self._losses.get(each.digest, 0) + 1
                    lost.add(each.digest)
            self._ready = {}
            while len(self._known) > MOST_DEFINITIONS:
                self._known.popitem(last=False)
            self._changed.notify_all()
        return frozenset(lost)

    def expect(self, spec: JobSpec) -> None:
        """Ask for the definition of a job whose attempt will begin soon, if it is missing."""
        digest = spec.definition
        if digest and digest not in self._known:
            with self._changed:
                if digest not in self._known:
                    self._lacks[digest] = None
            self._is_missing()

    def resolve(self, spec: JobSpec) -> tuple[JobSpec, Pricer] | None:
        """The job with the digest of its definition, and the pricer to run; None if its pricer is unknown.

        A job of an older release has no definition; it runs what is configured now.

        Raises:
            DefinitionLostError: its definition is lost.
            UnavailableError: its definition did not come in time.
            SettingsError: its definition cannot be read.
        """
        pricer = self.pricer(spec)
        if pricer is None:
            return None
        if spec.definition:
            return spec, pricer
        known = self._configured.get(spec.pricer)
        if known is None or known[0] is not pricer:
            known = self._configured[spec.pricer] = (pricer, define(spec.pricer, pricer).digest)
        return replace(spec, version=pricer.version, definition=known[1]), pricer

    def pricer(self, spec: JobSpec) -> Pricer | None:
        """What to run for a job; None without a configured pricer or a definition; raises as `resolve`."""
        ready = self._ready.get((spec.pricer, spec.definition))
        if ready is not None:
            return ready
        if not spec.definition:
            return self._pricers.get(spec.pricer)
        losses = self._losses.get(spec.definition, 0)
        self.expect(spec)
        with self._changed:
            self._changed.wait_for(lambda: self._is_decided(spec.definition, losses), WAIT_S)
            definition = self._known.get(spec.definition)
            if definition is None and self._losses.get(spec.definition, 0) > losses:
                raise DefinitionLostError(lost_message(spec))
            if definition is None:
                self._lacks.pop(spec.definition, None)
                if self._closed:
                    raise UnavailableError("the agent is stopping")
                raise UnavailableError(
                    f"the definition {spec.definition} of pricer {spec.pricer!r}, with which the job was submitted, "
                    f"did not come from the job store within {WAIT_S:g} s"
                )
            self._known.move_to_end(spec.definition)
            pricer = pricer_of(definition, self._pricers.get(spec.pricer))
            self._ready[spec.pricer, spec.definition] = pricer
            return pricer

    def _is_decided(self, digest: str, losses: int) -> bool:
        """Whether an attempt that waits for a definition need not wait longer."""
        return digest in self._known or self._closed or self._losses.get(digest, 0) > losses


def lost_message(spec: JobSpec) -> str:
    """The message of a failed job whose definition is lost."""
    return (
        f"the job store has lost the definition {spec.definition} of pricer {spec.pricer!r}, with which job "
        f"{spec.job_id} was submitted, and no other may run for it; submit the job again under a new jobId"
    )
