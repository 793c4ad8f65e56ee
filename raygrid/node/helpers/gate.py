"""Records which pricers are in use on a node, and holds their attempts back while helpers are being ended.

An attempt that connects to a dying helper would fail, or end with exit code 0 and no output (wine). An attempt
therefore registers here before its pricer is spawned, and waits while helpers of its pricer are being ended; these are
ended only while none of the pricer's attempts is registered. Thread-safe.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from raygrid.errors import UnavailableError
from raygrid.node.helpers.claims import Claims
from raygrid.node.helpers.rule import WINE, Programs, shared_through, sharing_with
from raygrid.settings.pricer import Pricer

HOLD_STEP_S = 0.1
CLAIM_STEP_S = 0.02
MOST_KNOWN = 1_000


@dataclass(slots=True)
class _Use:
    """How attempts and loaded warm processes use one pricer."""

    pricer: Pricer
    running: int = 0
    ended_at: float = 0.0  # of the last attempt, on the monotonic clock
    rules: Counter[Programs] = field(default_factory=Counter)  # attempts by their setting `helpers`, which may change
    ran_since_look: bool = True
    claims: frozenset[str] = frozenset()  # what its attempts use on the machine


class HelperGate:
    """Registers attempts, and holds new ones back while helpers of their pricers are being ended.

    Args:
        patience_s: how long an attempt is held back before it fails by the node's fault.
        claims: the helpers in use on this machine, including those of other agents.
    """

    def __init__(self, patience_s: float, claims: Claims | None = None) -> None:
        self._claims = claims or Claims(None)
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._uses: dict[str, _Use] = {}
        self._through: dict[str, frozenset[str]] = {}
        self._under_wine: dict[Hashable, bool] = {}  # by command and helpers
        self._closed: frozenset[str] = frozenset()

    def begin(self, name: str, pricer: Pricer, *, waits: bool = True) -> None:
        """Register an attempt that is about to start; `end` must follow.

        Args:
            name: the pricer's name.
            pricer: the definition that the attempt runs.
            waits: whether to wait at a closed gate. A warm process that is loaded for an attempt does not wait, because
                the gate waits for the end of the attempt.

        Raises:
            UnavailableError: helpers of the pricer were killed and do not end.
        """
        with self._changed:
            use = self._uses.get(name)
            if use is None or use.pricer is not pricer:
                use = self._learn(name, pricer)
            if waits and not (self._claims.holds(use.claims) and not self._closed):
                self._await_opening(name, use)
            use.running += 1
            use.rules[pricer.helpers] += 1

    def end(self, name: str, pricer: Pricer) -> None:
        """Unregister an attempt whose process was reaped."""
        with self._changed:
            use = self._uses[name]
            use.running -= 1
            use.ran_since_look = True
            use.rules[pricer.helpers] -= 1
            if not use.running:
                use.ended_at = time.monotonic()
                if self._closed:
                    self._changed.notify_all()

    def _learn(self, name: str, pricer: Pricer) -> _Use:
        # Keys of earlier definitions remain, because their helpers may still run.
        self._through[name] = through = self._through.get(name, frozenset()) | _through(pricer)
        use = self._uses.get(name)
        if use is None:
            use = self._uses[name] = _Use(pricer)
        use.pricer = pricer
        use.claims = _claims_of(name, through)
        return use

    def _is_closed(self, name: str) -> bool:
        return not self._closed.isdisjoint(sharing_with(name, self._through))

    def _await_opening(self, name: str, use: _Use) -> None:
        until = time.monotonic() + self._patience_s
        while (is_closed := self._is_closed(name)) or not self._claims.share(use.claims):
            if time.monotonic() >= until:
                raise UnavailableError(
                    f"helper processes that jobs of pricer {name!r} left behind were killed and do not end"
                )
            self._changed.wait(until - time.monotonic() if is_closed else CLAIM_STEP_S)

    def ran_lately(self, *, is_look: bool = True) -> dict[str, bool]:
        """The pricers that ever ran, and whether they ran since the last call that was a look."""
        with self._changed:
            ran = {name: use.ran_since_look or use.running > 0 for name, use in self._uses.items()}
            if is_look:
                for use in self._uses.values():
                    use.ran_since_look = False
            return ran

    def idle_s(self) -> dict[str, float]:
        """By pricer, the seconds since its last use; 0 while it is in use."""
        with self._changed:
            now = time.monotonic()
            return {name: 0.0 if use.running else now - use.ended_at for name, use in self._uses.items()}

    def rules(self, name: str) -> list[Programs]:
        """The settings `helpers` of a pricer's running attempts, else of its last attempt."""
        with self._changed:
            use = self._uses.get(name)
            if use is None:
                return []
            if not use.running:
                return [use.pricer.helpers]
            return [rule for rule, attempts in use.rules.items() if attempts]

    def pricers(self, names: Iterable[str]) -> list[Pricer]:
        """The latest definitions of these pricers that ran, with their limits."""
        with self._changed:
            return [self._uses[name].pricer for name in names if name in self._uses]

    def has_used_wine(self, name: str) -> bool:
        """Whether a pricer, for which `begin` was called, uses wine, or did with an earlier definition."""
        return WINE in self._through[name]

    def runs_under_wine(self, pricer: Pricer) -> bool:
        """Whether jobs of a definition use wine; an earlier definition of the same name may have used it."""
        key = (pricer.command, pricer.helpers)
        found = self._under_wine.get(key)
        if found is None:
            if len(self._under_wine) >= MOST_KNOWN:
                self._under_wine.clear()
            found = self._under_wine[key] = WINE in _through(pricer)
        return found

    def sharing(self, names: frozenset[str]) -> frozenset[str]:
        """These pricers and those that share helpers with them."""
        with self._changed:
            return frozenset(each for name in names for each in sharing_with(name, self._through))

    def close(self, names: frozenset[str], idle_s: float) -> bool:
        """Let no attempt of these pricers start until `open`, and no other agent of this machine use their helpers.

        False, without effect, if they were in use within the last `idle_s`, or if another agent uses such helpers.
        """
        with self._changed:
            now = time.monotonic()
            uses = [self._uses[name] for name in names if name in self._uses]
            if any(use.running or now - use.ended_at < idle_s for use in uses):
                return False
            self._closed |= names
            return self._exclude_others(names)

    def hold(self, names: frozenset[str], wait_s: float, meanwhile: Callable[[], None]) -> bool:
        """Hold new attempts of these pricers back until the running ones have ended, then do as `close`.

        False, and the gate is open again, if that takes longer than `wait_s`, or if another agent uses such helpers.
        `meanwhile` is called repeatedly, without the lock.
        """
        with self._changed:
            self._closed |= names
        until = time.monotonic() + wait_s
        while True:
            meanwhile()
            with self._changed:
                if not any(self._uses[name].running for name in names if name in self._uses):
                    return self._exclude_others(names)
                if time.monotonic() >= until:
                    break
                self._changed.wait(HOLD_STEP_S)
        self.open(names)
        return False

    def _exclude_others(self, names: frozenset[str]) -> bool:
        """Claim these pricers' helpers for this agent; if another agent uses one, open the gate and return False."""
        if self._claims.exclude(self._claims_of_all(names)):
            return True
        self.open(names)
        return False

    def release_idle(self, idle_s: float) -> None:
        """Release the claims of pricers that have been idle for so long."""
        with self._changed:
            now = time.monotonic()
            used = [use for use in self._uses.values() if use.running or now - use.ended_at < idle_s]
            if not self._closed:
                self._claims.keep_only(each for use in used for each in use.claims)

    def _claims_of_all(self, names: frozenset[str]) -> frozenset[str]:
        return frozenset().union(*(_claims_of(name, self._through.get(name, frozenset())) for name in names))

    def open(self, names: frozenset[str]) -> None:
        """Let attempts of these pricers start again."""
        with self._changed:
            self._claims.release(self._claims_of_all(names))
            self._closed -= names
            self._changed.notify_all()


def _claims_of(name: str, through: frozenset[str]) -> frozenset[str]:
    return frozenset((f"pricer-{name}", *(f"program-{program}" for program in through)))


def _through(pricer: Pricer) -> frozenset[str]:
    return shared_through(pricer.command, pricer.helpers, is_windows=runs_windows_program(pricer.command[0]))


def runs_windows_program(program: str) -> bool:
    """Whether a program is one for Windows, for which the kernel may start wine."""
    try:
        with open(program, "rb") as file:
            return file.read(2) == b"MZ"
    except OSError:
        return False
