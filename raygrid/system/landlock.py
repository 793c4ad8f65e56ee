"""Landlock: a domain that the calling thread and the processes that it starts cannot leave. See landlock(7).

In every domain, tracing processes outside of it and reading their memory and environment is refused. Rulesets add more:
signals, abstract Unix sockets, TCP, and files.
"""

from __future__ import annotations

import ctypes
import os
import stat

from raygrid.system.system_calls import checked

SIGNALS_ABI = 6
FILES_ABI = 3
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1
_SCOPE_ABSTRACT_UNIX_SOCKETS, _SCOPE_SIGNALS = 1, 2
_TCP_BIND, _TCP_CONNECT = 1, 2

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL_DEVICE = 1 << 14, 1 << 15
READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE
_ALL_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_ALL = (1 << 16) - 1  # from ABI 5 on

_libc = ctypes.CDLL(None, use_errno=True)
_quick = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter lock, for calls of a microsecond


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


def abi() -> int:
    """The version of Landlock that the kernel offers; 0 if none."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)))


class Ruleset:
    """Rules for domains; `restrict` makes a new domain of them each time.

    It scopes signals and abstract Unix sockets to the domain, as far as the kernel can (ABI 6).

    Args:
        files: whether only files that `allow` names may be used.
        network: whether TCP stays allowed.

    Raises:
        OSError: the kernel has no Landlock.
    """

    def __init__(self, *, files: bool = False, network: bool = True) -> None:
        version = abi()
        everything = _ALL_BY_ABI.get(version, _ALL)
        attributes = _RulesetAttributes(
            everything if files else 0,
            0 if network or version < 4 else _TCP_BIND | _TCP_CONNECT,
            _SCOPE_ABSTRACT_UNIX_SOCKETS | _SCOPE_SIGNALS if version >= SIGNALS_ABI else 0,
        )
        self._files = attributes.files
        size = 24 if version >= SIGNALS_ABI else 16 if version >= 4 else 8
        is_empty = not (attributes.files or attributes.net or attributes.scoped)
        if is_empty:  # the kernel takes no empty ruleset
            self._files = attributes.files = _EXECUTE
        self.descriptor = checked(
            _libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), size, 0), "landlock_create_ruleset"
        )
        if is_empty:
            self.allow("/", _EXECUTE)

    def allow(self, path: str, access: int = _ALL) -> None:
        """Allow access to a file, or to a directory and all below it; what does not exist is ignored."""
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                access &= _OF_FILES
            rule = _PathBeneath(access & self._files, descriptor)
            if rule.access:
                checked(
                    _libc.syscall(_ADD_RULE, self.descriptor, _PATH_BENEATH, ctypes.byref(rule), 0), "landlock_add_rule"
                )
        finally:
            os.close(descriptor)

    def restrict(self) -> None:
        """Put the calling thread into a new domain with these rules; it must have `no_new_privs`.

        Raises:
            OSError: the thread is in too many domains already.
        """
        checked(_quick.syscall(_RESTRICT_SELF, self.descriptor, 0), "landlock_restrict_self")

    def close(self) -> None:
        """Close the ruleset; domains stay."""
        os.close(self.descriptor)
