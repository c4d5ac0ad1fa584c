"""The server's side of the warm cluster: starts `standins.compute.zygote` and passes runs to it."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

_REPLY_SECONDS = 10.0
_RESTART_SECONDS = 30.0  # delay before a warm cluster that failed is started again


class Warm:
    """At most one warm process. Used by one thread only; the process is killed when that thread ends.

    `STANDINS_WARM` says when it starts: `start` (with the server), `first` (with the first run; default) or `never`.
    """

    def __init__(self, state: Path, environment: Mapping[str, str]) -> None:
        self._state = state
        self._environment = environment
        self._when = os.environ.get("STANDINS_WARM", "first")
        if self._when not in ("start", "first", "never"):
            raise ValueError(f"STANDINS_WARM must be start, first or never; found {self._when!r}")
        self._process: subprocess.Popen[bytes] | None = None
        self.ready = False
        self._not_before = 0.0

    def start_early(self) -> None:
        """Start the warm process now when `STANDINS_WARM` is `start`."""
        if self._when == "start":
            self._start()

    def check_ready(self) -> None:
        """Set `ready` when the process has announced that its imports are done."""
        if self._process is not None and not self.ready:
            self.ready = self._read_line(0.0) == b"ready"

    def fork(self, folder: Path) -> bool:
        """Start the run in `folder` as a fork. False: not warm (yet), and the caller must start it another way.

        When the reply is lost, the run may be started twice; the claim in its folder lets only one do the work.
        """
        if self._when == "never":
            return False
        if self._process is None:
            if time.monotonic() >= self._not_before:
                self._start()
            return False
        self.check_ready()
        if not self.ready:
            return False
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{folder}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            self._give_up()
            return False
        if not self._read_line(_REPLY_SECONDS).isdigit():
            self._give_up()
            return False
        return True

    def close(self) -> None:
        """End the warm process; runs that it started continue."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process, self.ready = None, False

    def _start(self) -> None:
        with (self._state / "warm.log").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "standins.compute.zygote", str(os.getpid())],
                cwd=Path(__file__).resolve().parents[2],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )

    def _read_line(self, seconds: float) -> bytes:
        """The next line of the warm process, stripped; empty after `seconds` without one. It writes whole lines."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        readable, _, _ = select.select([descriptor], [], [], seconds)
        if not readable:
            return b""
        line = os.read(descriptor, 64).strip()
        if not line:  # the pipe is closed: the process has ended
            self._give_up()
        return line

    def _give_up(self) -> None:
        if self._process is None:
            return
        code = self._process.poll()
        log.warning("the warm cluster failed (exit code %s); see %s", code, self._state / "warm.log")
        self.close()
        self._not_before = time.monotonic() + _RESTART_SECONDS
