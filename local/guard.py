"""The process above the supervisor: `python -m local.guard --machine module:function --instance ID`.

It does nothing until the supervisor ends. When the supervisor is killed, the kernel signals the services to stop;
processes that they leave behind become children of the guard, which ends them. When the guard is killed, the kernel
signals the supervisor to stop everything. So neither death leaves an orphan.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys

from local import processes
from local.processes import Identity
from local.settings import Settings, from_environment
from local.state import load, supervisor_lock

log = logging.getLogger("local.guard")
_GRACE = 8.0  # seconds for processes that a killed supervisor left, before SIGKILL


def main() -> None:
    parser = argparse.ArgumentParser(prog="local.guard")
    parser.add_argument("--machine", required=True)
    parser.add_argument("--instance", required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    settings = from_environment()
    with supervisor_lock(settings.run_dir) as acquired:
        if not acquired:
            sys.exit("another supervisor runs in this state directory")
        sys.exit(_guard(settings, arguments.machine, arguments.instance))


def _guard(settings: Settings, machine: str, instance: str) -> int:
    own = Identity.of(os.getpid())
    assert own is not None  # this very process
    processes.become_subreaper()
    # These signals are waited for, never handled; the supervisor inherits the same mask.
    waited = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    child = os.fork()
    if child == 0:
        _supervise(settings, machine, instance, own)
    while True:
        received = signal.sigwaitinfo(waited)
        if received.si_signo != signal.SIGCHLD:
            os.kill(child, signal.SIGTERM)
        ended = _reap()
        if child in ended:
            break
    left = processes.end(lambda: processes.descendants(os.getpid()), _GRACE, _reap)
    if os.WIFSIGNALED(ended[child]):
        log.error("the supervisor was killed by signal %d; %d processes ended", os.WTERMSIG(ended[child]), left)
        status = load(settings.run_dir)
        if status is not None:
            status.phase = "stopped"
            status.save(settings.run_dir)
    return os.waitstatus_to_exitcode(ended[child])


def _reap() -> dict[int, int]:
    """The wait statuses of all children that have ended."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def _supervise(settings: Settings, machine: str, instance: str, guard: Identity) -> None:
    """Run the supervisor in the forked child. Never returns."""
    code = 1
    try:
        processes.die_with(guard.pid)
        processes.become_subreaper()
        from local.supervisor import Supervisor  # not before the fork: the guard stays small
        from local.unit import load_machine

        code = 0 if Supervisor(settings, load_machine(machine)(settings), instance, guard).run() else 1
    except BaseException:
        log.exception("the supervisor failed")
    finally:
        logging.shutdown()
        os._exit(code)


if __name__ == "__main__":
    main()
