"""The sandboxes of one agent: made when needed, used again, and replaced when something may be left in one."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from raygrid.core.sandbox_state import NO_SANDBOX, SandboxState
from raygrid.node.attempt.jobs_directory import JobsDirectory
from raygrid.node.attempt.safe_paths import remove
from raygrid.node.attempt.workspace import Workspace
from raygrid.node.helpers.gate import runs_windows_program
from raygrid.node.helpers.rule import WINE, shared_through
from raygrid.node.sandbox import view
from raygrid.node.sandbox.mechanisms import Mechanisms, probe
from raygrid.node.sandbox.plan import SandboxPlan, plan
from raygrid.node.sandbox.threads import RestrictedThreads
from raygrid.settings.pricer import Pricer
from raygrid.system import capabilities, ipc, namespaces, seccomp
from raygrid.system.landlock import READ, Ruleset

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_IDLE = 256
"""Idle sandboxes that are kept; the longest idle is ended first."""


class NoSandbox:
    """Runs pricers without any restriction, for `sandbox: off`.

    Attributes:
        directory: where job directories are made.
        state: what protects from these pricers: nothing.
        shared_memory: a descriptor of the sandbox's own `/dev/shm`; -1 without one.
        key: which pricers can use it.
    """

    def __init__(self, directory: JobsDirectory) -> None:
        self.directory = directory
        self.state = NO_SANDBOX
        self.shared_memory = -1
        self.key: Hashable = None

    def run(self, work: Callable[[], T]) -> T:
        """Do work that starts a pricer; return what it returns, raise what it raises."""
        return work()

    def pricer_ended(self, *, left_nothing: bool) -> None:
        """Called by work after the end of its pricer; states whether it left no process behind."""
        self.directory.unlock()

    def close(self) -> None:
        """End what belongs to it."""


class WithoutPrivileges(NoSandbox):
    """No sandbox either, but without the capabilities that an agent has in its user namespace."""

    def __init__(self, directory: JobsDirectory) -> None:
        super().__init__(directory)
        self._threads = RestrictedThreads(capabilities.drop_all, lambda: None)

    def run(self, work: Callable[[], T]) -> T:
        """Do work in a thread without capabilities."""
        return self._threads.run(work)

    def close(self) -> None:
        """End the waiting thread."""
        self._threads.close()


class Sandbox(NoSandbox):
    """One sandbox. Its directory, what its processes see, and the threads that start them.

    Args:
        is_shared: whether all its processes are in one domain, so that they can signal each other.

    Raises:
        OSError: the kernel refuses it.
    """

    def __init__(self, key: Hashable, directory: JobsDirectory, plan: SandboxPlan, *, is_shared: bool) -> None:
        super().__init__(directory)
        self.key = key
        self.state = plan.state
        self._plan = plan
        self._times_made = directory.times_made
        self._rules: Ruleset | None = None
        self._is_shared = is_shared
        self._is_empty = True
        try:
            self._threads = RestrictedThreads(self._prepare, self._restrict)
        except BaseException:
            self._close_descriptors()
            raise

    def run(self, work: Callable[[], T]) -> T:
        """Do work in a thread with the sandbox's restrictions; processes that it starts have them as well."""
        return self._threads.run(work)

    def pricer_ended(self, *, left_nothing: bool) -> None:
        """Open its directory again for the node, and look whether something outlives the pricer."""
        self.directory.unlock()
        self._is_empty = left_nothing and not (self._plan.own_ipc and ipc.is_in_use())

    @property
    def is_sound(self) -> bool:
        """Whether its directory is still the one that its processes see."""
        return self._times_made == self.directory.times_made

    def is_as_new(self) -> bool:
        """Whether the next attempt finds nothing of earlier ones; what they left in shared memory is removed."""
        if not (self._is_empty and self.is_sound and self.directory.is_as_new()):
            return False
        if self.shared_memory < 0:
            return True
        with contextlib.suppress(OSError):
            with os.scandir(self.shared_memory) as entries:
                names = [entry.name for entry in entries]
            for name in names:
                remove(name, self.shared_memory)
            return True
        return False

    def close(self) -> None:
        """End its waiting thread; processes that still run in it keep their restrictions."""
        self._threads.close()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        if self._rules is not None:
            self._rules.close()
            self._rules = None
        if self.shared_memory >= 0:
            os.close(self.shared_memory)
            self.shared_memory = -1

    def _prepare(self) -> None:
        wanted = self._plan
        kinds = (
            (namespaces.NEW_MOUNTS if wanted.view is not None else 0)
            | (namespaces.NEW_NETWORK if wanted.own_network else 0)
            | (namespaces.NEW_IPC if wanted.own_ipc else 0)
        )
        if kinds:
            namespaces.unshare(kinds)
        if wanted.own_network:
            namespaces.bring_loopback_up()
        if wanted.view is not None:
            namespaces.keep_mounts_inside()
            self.shared_memory = view.build(wanted.view)
        if wanted.domains:
            self._rules = self._ruleset()
        if os.geteuid() == 0:
            capabilities.drop_harmful()
        else:
            capabilities.drop_all()
        namespaces.no_new_privileges()
        if wanted.filters:
            seccomp.install(seccomp.filter_program(network=wanted.network or wanted.own_network))
        if self._is_shared and self._rules is not None:
            self._rules.restrict()

    def _ruleset(self) -> Ruleset:
        wanted = self._plan
        rules = Ruleset(files=wanted.files is not None, network=wanted.network or wanted.own_network)
        if wanted.files is not None:
            for path in wanted.files.read:
                rules.allow(path, READ)
            for path in wanted.files.write:
                rules.allow(path)
        return rules

    def _restrict(self) -> None:
        if not self._is_shared and self._rules is not None:
            self._rules.restrict()


class Sandboxes:
    """Gives each attempt a sandbox; thread-safe. `close` ends them all, after the last attempt.

    An attempt has a sandbox of its own, with two exceptions. Pricers that share helpers, such as wine's server, share
    one sandbox, in which their processes can also signal each other. The warm processes of a pricer share the view of
    its job directories.

    Args:
        workspace: the directories of the agent, which sandboxes hide.
        hidden: further paths of the grid that are hidden.
        read_only: paths that pricers cannot change, because others run what is there.
    """

    def __init__(self, workspace: Workspace, hidden: Sequence[str] = (), read_only: Sequence[str] = ()) -> None:
        self._workspace = workspace
        self._hidden = (str(workspace.root), *hidden)
        self._off = NoSandbox(workspace.without_sandbox)
        self._read_only = tuple(read_only)
        self._mechanisms = Mechanisms()
        self._lock = threading.Lock()
        self._idle: deque[Sandbox] = deque()  # the longest idle is the first
        self._shared: dict[Hashable, Sandbox] = {}
        self._kinds: dict[str, tuple[Pricer, Hashable, bool, bool]] = {}

    def open(self) -> None:
        """Find out what the kernel offers."""
        self._mechanisms = probe()
        if self._mechanisms.in_user_namespace and not self._mechanisms.is_root:
            self._off = WithoutPrivileges(self._workspace.without_sandbox)

    def usual_state(self, pricers: Iterable[Pricer]) -> SandboxState:
        """What protects from most pricers on this node."""
        modes = {each.sandbox_mode: each for each in pricers}
        for mode in ("protect", "strict"):
            if mode in modes:
                return self.state(modes[mode])
        return NO_SANDBOX

    def state(self, pricer: Pricer) -> SandboxState:
        """What protects from a pricer on this node."""
        if pricer.sandbox_mode == "off":
            return NO_SANDBOX
        return self._plan(pricer, self._workspace.without_sandbox).state

    def close(self) -> None:
        """End all sandboxes."""
        with self._lock:
            sandboxes = [*self._idle, *self._shared.values()]
            self._idle.clear()
            self._shared.clear()
        for each in sandboxes:
            self._end(each)
        self._off.close()

    def take(self, name: str, pricer: Pricer) -> NoSandbox:
        """A sandbox for an attempt of a pricer; `give_back` follows.

        Raises:
            OSError: the kernel or the disk refuses it.
        """
        if pricer.sandbox_mode == "off":
            return self._off
        key, is_pooled, is_shared = self._kind(name, pricer)
        with self._lock:
            if is_pooled:
                for each in reversed(self._idle):
                    if each.key == key:
                        self._idle.remove(each)
                        return each
            else:
                known = self._shared.get(key)
                if known is not None and known.is_sound:
                    return known
                made = self._shared[key] = self._make(key, pricer, is_shared=is_shared)
                return made
        return self._make(key, pricer, is_shared=False)

    def give_back(self, sandbox: NoSandbox) -> None:
        """Take a sandbox back after its attempt, whose files were removed; it is ended unless it is as good as new."""
        if not isinstance(sandbox, Sandbox) or self._shared.get(sandbox.key) is sandbox:
            return
        surplus: Sandbox | None = sandbox
        if sandbox.is_as_new():
            with self._lock:
                self._idle.append(sandbox)
                surplus = self._idle.popleft() if len(self._idle) > MOST_IDLE else None
        if surplus is not None:
            self._end(surplus)

    def _kind(self, name: str, pricer: Pricer) -> tuple[Hashable, bool, bool]:
        """A pricer's key for sandboxes, whether each attempt has its own, and whether all processes share a domain."""
        known = self._kinds.get(name)
        if known is None or known[0] is not pricer:
            mode = pricer.sandbox_mode
            settings: Hashable = (mode, pricer.write)
            if mode == "strict":
                settings = (mode, pricer.command, pricer.read, pricer.write, pricer.network)
            through = shared_through(pricer.command, pricer.helpers, is_windows=runs_windows_program(pricer.command[0]))
            if through:
                key: Hashable = ("helpers", WINE if WINE in through else min(through), settings)
            elif pricer.mode == "warm":
                key = ("warm", name, settings)
            else:
                key = ("own", settings)
            is_pooled = not through and pricer.mode == "cold"
            known = self._kinds[name] = (pricer, key, is_pooled, bool(through))
        return known[1:]

    def _make(self, key: Hashable, pricer: Pricer, *, is_shared: bool) -> Sandbox:
        directory = self._workspace.of_a_sandbox()
        try:
            return Sandbox(key, directory, self._plan(pricer, directory), is_shared=is_shared)
        except BaseException:
            self._workspace.remove_sandbox(directory)
            raise

    def _plan(self, pricer: Pricer, directory: JobsDirectory) -> SandboxPlan:
        return plan(pricer, self._mechanisms, self._hidden, self._read_only, directory.path, str(self._workspace.spare))

    def _end(self, sandbox: Sandbox) -> None:
        sandbox.close()
        self._workspace.remove_sandbox(sandbox.directory)
