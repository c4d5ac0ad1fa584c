"""Confines this process, and every process that it starts, to writing where tests may write. Linux's Landlock holds it.

Reading is not confined. Landlock needs no privilege, holds for root too and cannot be undone; a confined process
cannot mount file systems either.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

# linux/landlock.h
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, the same numbers on every architecture
_VERSION, _PATH_BENEATH = 1, 1
_PR_SET_NO_NEW_PRIVS = 38
_LEAST_ABI = 3  # with the rights to rename between folders and to truncate
_WRITE_FILE, _REMOVE_DIR, _REMOVE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 4, 1 << 5, 1 << 13, 1 << 14
_MAKE = sum(1 << bit for bit in range(6, 13))  # device, folder, file, socket, fifo, block device, link
_IN_FOLDERS = _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE | _REFER | _TRUNCATE
_ON_FILES = _WRITE_FILE | _TRUNCATE


def is_possible() -> bool:
    """Whether this kernel has what is needed."""
    return _call(_CREATE_RULESET, None, 0, _VERSION) >= _LEAST_ABI


def confine(writable: Iterable[Path]) -> None:
    """From now on this process and those it starts write below these paths only. Raises OSError where it fails."""
    rules = _checked(_CREATE_RULESET, struct.pack("=Q", _IN_FOLDERS), 8, 0)
    try:
        for path in writable:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rights = _IN_FOLDERS if path.is_dir() else _ON_FILES
                _checked(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
            finally:
                os.close(descriptor)
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
        _checked(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _call(number: int, *arguments: bytes | int | None) -> int:
    """The result of a system call, -1 when it fails."""
    typed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result: int = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *typed)
    return result


def _checked(number: int, *arguments: bytes | int | None) -> int:
    result = _call(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock system call {number}: {os.strerror(ctypes.get_errno())}")
    return result
