"""System calls that return at once, made without releasing the interpreter lock (GIL).

Python releases the lock for each system call, and a thread may get it back only when another thread pauses. For calls
of half a microsecond, of which short jobs consist, the wait is far longer than the call.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.PyDLL(None, use_errno=True)  # unlike CDLL, it keeps the lock
_lseek = _libc.lseek64 if hasattr(_libc, "lseek64") else _libc.lseek
_lseek.argtypes, _lseek.restype = (ctypes.c_int, ctypes.c_int64, ctypes.c_int), ctypes.c_int64
_waitid = _libc.waitid
_waitid.argtypes, _waitid.restype = (ctypes.c_int, ctypes.c_uint, ctypes.c_void_p, ctypes.c_int), ctypes.c_int
_flistxattr = _libc.flistxattr
_flistxattr.argtypes, _flistxattr.restype = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_ssize_t
_fcntl = _libc.fcntl
_fcntl.argtypes, _fcntl.restype = (ctypes.c_int, ctypes.c_int, ctypes.c_long), ctypes.c_int


def size_of(file: int) -> int:
    """The size of an open file in bytes; the file's position moves to its end.

    Raises:
        OSError: the descriptor has no position, as a pipe.
    """
    return checked(_lseek(file, 0, os.SEEK_END))


def control(file: int, command: int, argument: int) -> int:
    """As `fcntl.fcntl` with an integer argument."""
    return checked(_fcntl(file, command, argument))


def attributes_size(file: int) -> int:
    """The size of the list of an open file's extended attributes in bytes; 0 if it has none.

    Raises:
        OSError: the file system has no attributes.
    """
    return checked(_flistxattr(file, None, 0))


def has_child(options: int) -> bool:
    """Whether `os.waitid` with these options, which must include `WNOHANG`, finds any child."""
    try:
        checked(_waitid(os.P_ALL, 0, None, options))
    except ChildProcessError:
        return False
    return True


def checked(result: int, what: str | None = None) -> int:
    """What a system call returned, made through a library that was loaded with `use_errno`.

    Raises:
        OSError: it failed; `filename` is `what`.
    """
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)
    return result
