"""Starts a service: the last steps before `exec`, in the process that becomes the service.

    python -I launch.py [--unprivileged] <death signal> <parent pid> <directory> <command> …

It requests a signal from the kernel for when the supervisor dies, so that no service outlives it, and gives up root
where the service refuses to run as root. This does not happen between fork and exec of the supervisor, because the
supervisor has threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
_CLONE_NEWUSER = 0x10000000
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _permitted() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm"))


def _keep_one(capability: int) -> None:
    """Keep a single capability, also after exec."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    mask = 1 << capability
    _call("capset", header, (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0))
    _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def _unshare_user() -> None:
    """Become nobody in a new user namespace, where this process cannot become the real nobody."""
    uid, gid = os.geteuid(), os.getegid()
    _call("unshare", _CLONE_NEWUSER)
    for path, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
        Path("/proc/self", path).write_text(text)


def give_up_root(needed: tuple[str, ...]) -> None:
    """Give up root, and still be able to reach the `needed` files.

    Become nobody, where nobody may traverse the folders above them. Otherwise (a clone below a private home) become
    nobody with the one capability to traverse folders; in a container with a single user, nobody of a user namespace.
    """
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, 0)
    except OSError:
        _unshare_user()
        return
    reachable = all(os.access(path, os.X_OK) for path in needed)
    os.setresuid(0, 0, 0)
    if reachable:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return
    permitted = _permitted()
    capability = _CAP_DAC_READ_SEARCH if permitted >> _CAP_DAC_READ_SEARCH & 1 else _CAP_DAC_OVERRIDE
    _call("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    _keep_one(capability)


def main(arguments: list[str]) -> None:
    unprivileged = arguments[0] == "--unprivileged"
    death_signal, parent, directory, *command = arguments[1:] if unprivileged else arguments
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the supervisor blocks the signals that it waits for
    os.chdir(directory)
    if unprivileged and os.geteuid() == 0:
        give_up_root((command[0], directory))
    # Last, because the kernel clears it when the user changes.
    _call("prctl", _PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(f"{command[0]} was not started: its supervisor has died.")
    os.execv(command[0], command)  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    main(sys.argv[1:])
