"""The sandboxes of one agent: made when needed, used again, and replaced when something may be left in one."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from enum import Enum

from raygrid.core.sandbox_state import NO_SANDBOX, SandboxState
from raygrid.node.attempt.jobs_directory import JobsDirectory
from raygrid.node.attempt.safe_paths import has_attributes, remove
from raygrid.node.attempt.workspace import Workspace
from raygrid.node.helpers.gate import runs_windows_program
from raygrid.node.helpers.rule import WINE, shared_through
from raygrid.node.sandbox import view
from raygrid.node.sandbox.mechanisms import Mechanisms, probe
from raygrid.node.sandbox.no_sandbox import NoSandbox, T, WithoutPrivileges
from raygrid.node.sandbox.plan import SandboxPlan, plan
from raygrid.node.sandbox.threads import RestrictedThread, RestrictedThreads
from raygrid.node.sandbox.users import PricerUser, PricerUsers, UnusableUserError
from raygrid.node.sandbox.weakest import weakest
from raygrid.settings.pricer import Pricer
from raygrid.system import capabilities, ipc, namespaces, seccomp
from raygrid.system.ipc_tables import SemaphoresAndMessages
from raygrid.system.landlock import READ, Ruleset
from raygrid.system.shared_segments import SegmentTable

LOOK_S = 1.0
"""How often the agent looks whether a hidden or read-only file was replaced."""
MOST_IDLE = 256
"""Idle sandboxes that are kept; the longest idle is ended first."""


class Use(Enum):
    """Who uses a sandbox."""

    ONE_ATTEMPT = "one attempt after another, while none leaves anything"
    WARM = "all warm processes of a pricer, which cannot signal each other"
    HELPERS = "all attempts of pricers that share helpers, and these helpers"


class Sandbox(NoSandbox):
    """One sandbox. Its directory, what its processes see, and the threads that start them.

    `key` states which pricers can use it, `generation` with which hidden files it was made. `user` is the user of its
    processes, None for the agent's own.

    Raises:
        OSError: the kernel refuses it.
    """

    def __init__(
        self,
        key: Hashable,
        directory: JobsDirectory,
        plan: SandboxPlan,
        use: Use,
        generation: int = 0,
        user: PricerUser | None = None,
    ) -> None:
        super().__init__(directory)
        self._user = user
        if user is not None:
            self.variables = user.account.variables
        self.key = key
        self.state = plan.state
        self.generation = generation
        self.use = use
        self.only_starts = use is Use.HELPERS
        self.plan = self._plan = plan
        self._times_made = directory.times_made
        self._rules: Ruleset | None = None
        self._queues = -1  # the directory of its message queues
        self._no_queues = 0  # the size of that directory while there is none
        self._is_empty = True
        try:
            self._threads = self._start_threads()
        except BaseException:
            self._close_descriptors()
            raise

    def _start_threads(self) -> RestrictedThread:
        if self.use is Use.ONE_ATTEMPT:
            return RestrictedThread(self._prepare_domain)
        if self.use is Use.HELPERS:  # one thread that only starts pricers: all could signal the threads of others
            return RestrictedThread(self._prepare_domain)
        return RestrictedThreads(self._prepare, self._enter_domain)

    def _run(self, work: Callable[[], T]) -> T:
        self._is_empty = False  # until the end of a pricer was seen
        return self._threads.run(work)

    def pricer_ended(self, *, left_nothing: bool) -> None:
        """Look whether something outlives the pricer; called by work."""
        self._is_empty = left_nothing and not (self._plan.own_ipc and (ipc.is_in_use() or self._has_queues()))

    def _has_queues(self) -> bool:
        return self._queues >= 0 and os.fstat(self._queues).st_size != self._no_queues

    @property
    def is_sound(self) -> bool:
        """Whether its directory is still the one that its processes see, and may use."""
        plan = self._plan
        return self._times_made == self.directory.times_made or (plan.view is None and plan.files is None)

    def is_as_new(self) -> bool:
        """Whether the next attempt finds nothing of earlier ones; what they left in shared memory is removed."""
        if not (self._is_empty and self.is_sound and self.directory.is_as_new()):
            return False
        if self.shared_memory < 0:
            return True
        with contextlib.suppress(OSError):
            if has_attributes(self.shared_memory):
                return False
            if stat.S_IMODE(os.fstat(self.shared_memory).st_mode) != view.SHARED_MEMORY_MODE:
                os.fchmod(self.shared_memory, view.SHARED_MEMORY_MODE)
            if _is_empty(self.shared_memory):
                return True
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
        if self._queues >= 0:
            os.close(self._queues)
            self._queues = -1
        self.segments.close()
        if self.semaphores is not None:
            self.semaphores.close()

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
        if wanted.own_ipc:
            self.segments.close()  # those of the agent's namespace
            self.segments, self.semaphores = SegmentTable(), SemaphoresAndMessages()
            self._queues = namespaces.message_queues()
            self._no_queues = os.fstat(self._queues).st_size if self._queues >= 0 else 0
        if wanted.view is not None:
            namespaces.keep_mounts_inside()
            self.shared_memory = view.build(wanted.view, self._user.owners if self._user is not None else -1)
        if wanted.domains:
            self._rules = self._ruleset()
        if os.geteuid() == 0:
            capabilities.drop_harmful()
            if self._user is not None:
                self._user.enter(self.directory.path)
        else:
            capabilities.drop_all()
        namespaces.no_new_privileges()
        if wanted.filters:
            seccomp.install(seccomp.filter_program(network=wanted.network or wanted.own_network))

    def _prepare_domain(self) -> None:
        self._prepare()
        self._enter_domain()

    def _ruleset(self) -> Ruleset:
        wanted = self._plan
        rules = Ruleset(files=wanted.files is not None, network=wanted.network or wanted.own_network)
        if wanted.files is not None:
            for path in wanted.files.read:
                rules.allow(path, READ)
            for path in wanted.files.write:
                rules.allow(path)
        return rules

    def _enter_domain(self) -> None:
        """Put this thread into a domain of its own, in which it is the only one that is not a pricer's."""
        if self._rules is not None:
            self._rules.restrict()
        if self._plan.filters:
            seccomp.install(seccomp.program_against_signals(os.getpid(), threading.get_native_id()))


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
        self._kinds: dict[str, tuple[Pricer, Hashable, Use]] = {}
        self._generation = 0
        self._may_change: tuple[str, ...] = ()
        self._look_again_at = 0.0
        self._files: list[tuple[int, int] | None] = []  # what the hidden paths were when the sandboxes were made
        self._users = PricerUsers()
        self._retired: list[Sandbox] = []  # warm processes may still run in them

    def open(self) -> None:
        """Find out what the kernel offers."""
        self._mechanisms = probe()
        # A directory stays hidden with all that is made in it.
        directories = [path for path in self._hidden if os.path.isdir(path)]
        may_appear = (path for path in self._hidden if not view.is_below_one(path, directories))
        self._may_change = (*may_appear, *self._read_only)
        if self._mechanisms.in_user_namespace and not self._mechanisms.is_root:
            self._off.close()
            self._off = WithoutPrivileges(self._workspace.without_sandbox)

    def hide(self, paths: Sequence[str]) -> None:
        """Hide further paths from attempts that begin later: those of newer settings."""
        with self._lock:
            new = [path for path in paths if path not in self._hidden]
            self._hidden = (*self._hidden, *new)
            self._may_change = (*self._may_change, *new)
            if new:
                self._look_again_at = 0.0  # the next attempt gets a new sandbox

    def state_for_all(self, pricers: Mapping[str, Pricer]) -> SandboxState:
        """What protects from every pricer on this node."""
        return weakest({name: self.state(pricer) for name, pricer in pricers.items()})

    def state(self, pricer: Pricer) -> SandboxState:
        """What protects from a pricer on this node."""
        if pricer.sandbox_mode == "off":
            return NO_SANDBOX
        state = self._plan(pricer, self._workspace.without_sandbox, None).state
        try:
            self._user(pricer)
        except (UnusableUserError, OSError) as error:
            return state._replace(open=(*state.open, f"nothing runs: {error}"))
        return state

    def close(self) -> None:
        """End all sandboxes."""
        with self._lock:
            sandboxes = [*self._idle, *self._shared.values(), *self._retired]
            self._idle.clear()
            self._shared.clear()
            self._retired.clear()
        for each in sandboxes:
            self._end(each)
        self._users.close()
        self._off.close()

    def take(self, name: str, pricer: Pricer) -> NoSandbox:
        """A sandbox for an attempt of a pricer; `give_back` follows.

        Raises:
            OSError: the kernel or the disk refuses it.
        """
        if pricer.sandbox_mode == "off":
            return self._off
        key, use = self._kind(name, pricer)
        with self._lock:
            outdated = self._retire_outdated()
        for each in outdated:
            self._end(each)
        with self._lock:
            if use is Use.ONE_ATTEMPT:
                for each in reversed(self._idle):
                    if each.key == key:
                        self._idle.remove(each)
                        return each
            else:
                known = self._shared.get(key)
                if known is not None and known.is_sound:
                    return known
                made = self._make(key, pricer, use)
                if known is not None:
                    self._retired.append(known)  # attempts and warm processes may still use it
                self._shared[key] = made
                return made
        return self._make(key, pricer, use)

    def _retire_outdated(self) -> list[Sandbox]:
        """Use no sandbox again in which a path shows something that replaced it; called with the lock held.

        A mount hides one file or directory, so a file with the same name that is made later is visible. Sandboxes of
        helpers stay, because helpers could not talk to processes in another one.

        Returns the idle ones, which the caller ends.
        """
        if (now := time.monotonic()) < self._look_again_at:
            return []
        self._look_again_at = now + LOOK_S
        files = [_identity(path) for path in self._may_change]
        if files == self._files:
            return []
        self._files = files
        self._generation += 1
        for key, each in list(self._shared.items()):
            if each.use is Use.WARM:
                self._retired.append(self._shared.pop(key))
        idle = list(self._idle)
        self._idle.clear()
        return idle

    def give_back(self, sandbox: NoSandbox) -> None:
        """Take a sandbox back after its attempt, whose files were removed; it is ended unless it is as good as new."""
        if not isinstance(sandbox, Sandbox) or sandbox.use is not Use.ONE_ATTEMPT:
            return
        surplus: Sandbox | None = sandbox
        if sandbox.is_as_new():
            with self._lock:
                if sandbox.generation == self._generation:
                    self._idle.append(sandbox)
                    surplus = self._idle.popleft() if len(self._idle) > MOST_IDLE else None
        if surplus is not None:
            self._end(surplus)

    def _kind(self, name: str, pricer: Pricer) -> tuple[Hashable, Use]:
        """A pricer's key for sandboxes, and who uses one."""
        known = self._kinds.get(name)
        if known is None or known[0] is not pricer:
            mode = pricer.sandbox_mode
            settings: tuple[Hashable, ...] = (mode, pricer.sandbox_user, pricer.write)
            if mode == "strict":
                settings = (*settings, pricer.command, pricer.read, pricer.network)
            through = shared_through(pricer.command, pricer.helpers, is_windows=runs_windows_program(pricer.command[0]))
            use = Use.ONE_ATTEMPT
            key: Hashable = settings
            if through:
                use, key = Use.HELPERS, ("helpers", WINE if WINE in through else min(through), settings)
            elif pricer.mode == "warm":
                use, key = Use.WARM, ("warm", name, settings)
            known = self._kinds[name] = (pricer, key, use)
        return known[1:]

    def _make(self, key: Hashable, pricer: Pricer, use: Use) -> Sandbox:
        directory = self._workspace.of_a_sandbox()
        try:
            user = self._user(pricer)
            return Sandbox(key, directory, self._plan(pricer, directory, user), use, self._generation, user)
        except BaseException:
            self._workspace.remove_sandbox(directory)
            raise

    def _plan(self, pricer: Pricer, directory: JobsDirectory, user: PricerUser | None) -> SandboxPlan:
        hidden, read_only = self._hidden, self._read_only
        if user is not None:
            hidden, read_only = (*hidden, *user.escapes.hidden), (*read_only, *user.escapes.read_only)
        return plan(pricer, self._mechanisms, hidden, read_only, directory.path, str(self._workspace.spare))

    def _user(self, pricer: Pricer) -> PricerUser | None:
        """The user as which a pricer runs, where pricers can run as another one; None for the agent's own."""
        if pricer.sandbox_user is None or not self._mechanisms.users:
            return None
        return self._users.get(pricer.sandbox_user)

    def _end(self, sandbox: Sandbox) -> None:
        sandbox.close()
        self._workspace.remove_sandbox(sandbox.directory)


def _is_empty(memory: int) -> bool:
    """Whether a file system in memory has only its top directory."""
    status = os.fstatvfs(memory)
    return status.f_files - status.f_ffree == 1


def _identity(path: str) -> tuple[int, int] | None:
    """Which file or directory is at a path."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
