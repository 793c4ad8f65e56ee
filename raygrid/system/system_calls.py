"""Calls of the system that return at once, made without giving up the interpreter.

Python lets other threads run during any call into the kernel, and a thread that gives the interpreter up for a call of
half a microsecond may get it back only when another one pauses. Short jobs consist of such calls.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.PyDLL(None, use_errno=True)  # which keeps the interpreter, unlike CDLL
_lseek = _libc.lseek64 if hasattr(_libc, "lseek64") else _libc.lseek
_lseek.argtypes, _lseek.restype = (ctypes.c_int, ctypes.c_int64, ctypes.c_int), ctypes.c_int64
_waitid = _libc.waitid
_waitid.argtypes, _waitid.restype = (ctypes.c_int, ctypes.c_uint, ctypes.c_void_p, ctypes.c_int), ctypes.c_int
_fcntl = _libc.fcntl
_fcntl.argtypes, _fcntl.restype = (ctypes.c_int, ctypes.c_int, ctypes.c_long), ctypes.c_int


def size_of(file: int) -> int:
    """Bytes in an open file; moves to its end.

    Raises:
        OSError: it is no file.
    """
    return _checked(_lseek(file, 0, os.SEEK_END))


def control(file: int, command: int, argument: int) -> int:
    """As `fcntl.fcntl` with a number.

    Raises:
        OSError: the kernel refuses.
    """
    return _checked(_fcntl(file, command, argument))


def has_child(options: int) -> bool:
    """Whether there is any child that `os.waitid` with these options would look at; among them must be not to wait."""
    try:
        _checked(_waitid(os.P_ALL, 0, None, options))
    except ChildProcessError:
        return False
    return True


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
