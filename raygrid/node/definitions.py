"""What a node runs for a job: the definition that the job was submitted with, within the limits of now.

Leaders send definitions with the orders that need them, each once. An attempt whose definition is not here (the agent
was started anew, or dropped it) waits for a while; the node's next reply names what it lacks, and a leader sends it,
or the word that the job store has lost it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from raygrid.config import Pricer
from raygrid.definition import define, pricer_of
from raygrid.errors import DefinitionLostError, UnavailableError
from raygrid.models import Definition, JobSpec

WAIT_S = 20.0  # longer than a change of leader takes
KEPT = 256


class Definitions:
    """The definitions of one node; safe to call from many threads.

    Args:
        pricers: the configured pricers.
        lacking: called when an attempt waits for a definition, so that a leader learns of it soon.
    """

    def __init__(self, pricers: Mapping[str, Pricer], lacking: Callable[[], None] = lambda: None) -> None:
        self._pricers = pricers
        self._lacking = lacking
        self._known: OrderedDict[str, Definition] = OrderedDict()  # used last at the end
        self._ready: dict[tuple[str, str], Pricer] = {}  # by the pricer's name and the definition's digest
        self._configured: dict[str, tuple[Pricer, str]] = {}  # digests of configured pricers, where one was asked for
        self._lacks: dict[str, None] = {}
        self._losses: dict[str, int] = {}  # by digest: how often a leader has said that it is lost
        self._changed = threading.Condition()
        self._closed = False

    @property
    def lacks(self) -> tuple[str, ...]:
        """Digests of definitions that attempts need and that are not here."""
        return tuple(self._lacks)

    def follow(self, pricers: Mapping[str, Pricer]) -> None:
        """Newer settings have come: their limits count for attempts that begin from now on."""
        with self._changed:
            self._pricers = pricers
            self._ready = {}

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def put(self, definitions: Iterable[Definition]) -> frozenset[str]:
        """A leader has sent these; gives the digests of those that are lost, and not here either."""
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
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
            self._changed.notify_all()
        return frozenset(lost)

    def expect(self, spec: JobSpec) -> None:
        """An attempt of this job will begin soon."""
        digest = spec.definition
        if digest and digest not in self._known:
            with self._changed:
                if digest not in self._known:
                    self._lacks[digest] = None
            self._lacking()

    def pricer(self, spec: JobSpec) -> Pricer | None:
        """What to run for a job; None where its pricer is not configured and the job has no definition.

        Raises:
            DefinitionLostError: its definition is lost.
            UnavailableError: its definition did not come in time.
            SettingsError: its definition cannot be read.
        """
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

    def named(self, spec: JobSpec, pricer: Pricer) -> JobSpec:
        """The job with what it runs by name: one of an older release runs what is configured now."""
        if spec.definition:
            return spec
        known = self._configured.get(spec.pricer)
        if known is None or known[0] is not pricer:
            known = self._configured[spec.pricer] = (pricer, define(spec.pricer, pricer).digest)
        return replace(spec, version=pricer.version, definition=known[1])


def lost_message(spec: JobSpec) -> str:
    """The message for the client of a job whose definition is lost."""
    return (
        f"the job store has lost the definition {spec.definition} of pricer {spec.pricer!r}, with which job "
        f"{spec.job_id} was submitted, and no other may run for it; submit the job again under a new jobId"
    )
