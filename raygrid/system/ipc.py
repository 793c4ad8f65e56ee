"""System V IPC: whether the calling thread's IPC namespace contains any object."""

from __future__ import annotations

import ctypes

_MSG_INFO, _SHM_INFO, _SEM_INFO = 12, 14, 19
_BUFFER = 128  # larger than the structures below
_SETS = 7  # the number of `semusz` in `struct seminfo`, which SEM_INFO sets to the number of semaphore sets

_libc = ctypes.PyDLL(None)  # keeps the interpreter lock, for calls of a microsecond


def is_in_use() -> bool:
    """Whether there is a shared memory segment, a semaphore set or a message queue; True if that is unknown."""
    buffer = (ctypes.c_int * (_BUFFER // 4))()
    if _libc.shmctl(0, _SHM_INFO, buffer) < 0 or buffer[0]:  # `used_ids` of `struct shm_info`
        return True
    if _libc.msgctl(0, _MSG_INFO, buffer) < 0 or buffer[0]:  # `msgpool` of `struct msginfo`: the number of queues
        return True
    return bool(_libc.semctl(0, 0, _SEM_INFO, buffer) < 0 or buffer[_SETS])
