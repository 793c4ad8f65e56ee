"""Attacks on the sandbox itself by system calls: namespaces, mounts, keys, interfaces that pass filters by."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

from tests.hostile.attacks.attack import RefusedError, attack
from tests.hostile.attacks.syscalls import X32, below_4_gb, call, call_i386, checked
from tests.hostile.targets import Targets

NEW_MOUNTS, NEW_USERS, DETACH_MOUNT = 0x00020000, 0x10000000, 2
_LIBC = ctypes.CDLL(None, use_errno=True)


@attack("new-user-namespace")
def new_user_namespace(targets: Targets) -> str:
    """Get all capabilities in a new user namespace by `unshare`."""
    call("unshare", NEW_USERS)
    return _capabilities()


@attack("new-user-namespace-by-clone")
def new_user_namespace_by_clone(targets: Targets) -> str:
    """Start a process in a new user namespace by `clone`."""
    return _end_child(call("clone", NEW_USERS | signal.SIGCHLD, 0, 0, 0, 0))


@attack("new-user-namespace-by-clone3")
def new_user_namespace_by_clone3(targets: Targets) -> str:
    """Start a process in a new user namespace by `clone3`, whose flags no filter of system calls can see."""
    arguments = (ctypes.c_uint64 * 11)()
    arguments[0], arguments[4] = NEW_USERS, signal.SIGCHLD
    return _end_child(call("clone3", arguments, 88))


@attack("new-user-namespace-by-int80")
def new_user_namespace_by_int80(targets: Targets) -> str:
    """Get all capabilities in a new user namespace by the 32-bit table."""
    call_i386("unshare", NEW_USERS)
    return _capabilities()


@attack("new-user-namespace-by-clone-int80")
def new_user_namespace_by_clone_int80(targets: Targets) -> str:
    """Start a process in a new user namespace by `clone` of the 32-bit table."""
    return _end_child(call_i386("clone", NEW_USERS | signal.SIGCHLD, 0, 0, 0, 0))


@attack("new-user-namespace-by-x32")
def new_user_namespace_by_x32(targets: Targets) -> str:
    """Get all capabilities in a new user namespace by the x32 table."""
    call("unshare", NEW_USERS, table=X32)
    return _capabilities()


def _end_child(pid: int) -> str:
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "started a process there"


def _capabilities() -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line for line in lines if line.startswith("CapEff"))


@attack("have-capabilities")
def have_capabilities(targets: Targets) -> str:
    """Have a capability, in whatever user namespace."""
    found = [line.split() for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Cap")]
    if held := {name: value for name, value in found if name != "CapBnd:" and int(value, 16)}:
        return f"has {held}"
    raise RefusedError("it has none")


@attack("gain-privileges")
def gain_privileges(targets: Targets) -> str:
    """Be able to gain privileges from programs such as sudo."""
    if "NoNewPrivs:\t1" in Path("/proc/self/status").read_text():
        raise RefusedError("it has no_new_privs")
    return "it has not no_new_privs"


@attack("mount")
def mount(targets: Targets) -> str:
    """Mount something."""
    call("mount", b"none", b"/mnt", b"tmpfs", 0, None)
    return "mounted a directory in memory"


@attack("mount-by-int80")
def mount_by_int80(targets: Targets) -> str:
    """Mount something by the 32-bit table."""
    start = below_4_gb(b"tmpfs\0/mnt\0")
    call_i386("mount", start, start + 6, start, 0, 0)
    return "mounted a directory in memory"


@attack("unmount")
def unmount(targets: Targets) -> str:
    """Take away any mount, as those that hide the grid's directories."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        with contextlib.suppress(OSError):
            call("umount2", line.split()[4].encode(), DETACH_MOUNT)
            return f"unmounted {line.split()[4]}"
    raise PermissionError(1, "no mount could be taken away")


@attack("clone-mount")
def clone_mount(targets: Targets) -> str:
    """Copy the tree of mounts, without those that hide directories."""
    return f"got descriptor {call('open_tree', -100, b'/', 1)}"


@attack("new-file-system")
def new_file_system(targets: Targets) -> str:
    """Make a file system to mount."""
    return f"got descriptor {call('fsopen', b'tmpfs', 0)}"


@attack("change-mount")
def change_mount(targets: Targets) -> str:
    """Make a mount writable or private."""
    attributes = (ctypes.c_uint64 * 4)(0, 0, 1 << 18, 0)  # propagation: private
    call("mount_setattr", -100, b"/", 0, attributes, 32)
    return "changed the root mount"


@attack("change-root")
def change_root(targets: Targets) -> str:
    """Change the root directory, by both calls for it."""
    with contextlib.suppress(OSError):
        call("pivot_root", b".", b".")
        return "changed the root mount"
    call("chroot", b".")
    return "changed the root directory"


@attack("new-mount-namespace")
def new_mount_namespace(targets: Targets) -> str:
    """Get a mount namespace, with capabilities that came from elsewhere."""
    call("unshare", NEW_MOUNTS)
    return "got a mount namespace"


@attack("io-uring")
def io_uring(targets: Targets) -> str:
    """Set up io_uring, whose operations pass filters of system calls by."""
    return f"got descriptor {call('io_uring_setup', 4, (ctypes.c_uint32 * 30)())}"


@attack("io-uring-by-int80")
def io_uring_by_int80(targets: Targets) -> str:
    """Set up io_uring by the 32-bit table; a bad address shows that the call was allowed."""
    try:
        call_i386("io_uring_setup", 4, 0)
    except OSError as error:
        if error.errno != 14:
            raise
    return "the call was allowed"


@attack("keys")
def keys(targets: Targets) -> str:
    """Reach the user's keys, which all processes of the user share."""
    return f"keyring {call('keyctl', 0, -4, 1)}"


@attack("keys-by-int80")
def keys_by_int80(targets: Targets) -> str:
    """Reach the user's keys by the 32-bit table."""
    return f"keyring {call_i386('keyctl', 0, -4, 1)}"


@attack("bpf")
def bpf(targets: Targets) -> str:
    """Load a program into the kernel: make a map for it."""
    return f"got descriptor {call('bpf', 0, (ctypes.c_uint32 * 32)(1, 4, 4, 1), 128)}"


@attack("handle-page-faults")
def handle_page_faults(targets: Targets) -> str:
    """Handle page faults, with which races in the kernel are won."""
    return f"got descriptor {call('userfaultfd', 1)}"


@attack("load-module")
def load_module(targets: Targets) -> str:
    """Load a module into the kernel."""
    call("init_module", b"", 0, b"")
    return "loaded it"


@attack("memory-file")
def memory_file(targets: Targets) -> str:
    """Make a file of 1 MB in memory."""
    os.write(os.memfd_create("hostile"), b"x" * 2**20)
    return "made it; it counts as the job's memory only where a cgroup counts it"


@attack("raise-priority")
def raise_priority(targets: Targets) -> str:
    """Run before others."""
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    return "has priority -5"


@attack("shared-segment:victim")
def shared_segment(targets: Targets) -> str:
    """Read the System V shared memory of the other job."""
    segment = call("shmget", targets.victim_segment, 0, 0)
    _LIBC.shmat.restype = ctypes.c_void_p
    address = _LIBC.shmat(segment, None, 0o10000)  # to read
    checked(-1 if address in (None, 2**64 - 1) else 0)
    if targets.victim_text.encode() not in ctypes.string_at(address, len(targets.victim_text)):
        raise RefusedError("it has another content")
    return "read it"
