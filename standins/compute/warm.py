"""The stand-in's side of the warm cluster: starts `standins.compute.zygote`, hands runs to it."""

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
_AGAIN_AFTER = 30.0  # seconds before a warm cluster that died is started again


class Warm:
    """At most one warm process. Used by one thread only, which is the process's parent: they end together.

    `STANDINS_WARM` says when it starts: `start` with the stand-in, `first` (default) with the first run, or `never`.
    """

    def __init__(self, state: Path, environment: Mapping[str, str]) -> None:
        self._state = state
        self._environment = environment
        self._when = os.environ.get("STANDINS_WARM", "first")
        if self._when not in ("start", "first", "never"):
            raise ValueError(f"STANDINS_WARM: found {self._when!r}; start, first or never is needed")
        self._process: subprocess.Popen[bytes] | None = None
        self.ready = False
        self._not_before = 0.0

    def start_early(self) -> None:
        """Begin warming up, if it is to happen before the first run."""
        if self._when == "start":
            self._start()

    def look(self) -> None:
        """Take note of the end of warming up."""
        if self._process is not None and not self.ready:
            self.ready = self._line(0.0) == b"ready"

    def fork(self, folder: Path) -> bool:
        """Have the run in `folder` started. False: not warm (yet); the caller starts it another way.

        When the answer is lost, the run may be started twice; the claim in its folder keeps it single.
        """
        if self._when == "never":
            return False
        if self._process is None:
            if time.monotonic() >= self._not_before:
                self._start()
            return False
        self.look()
        if not self.ready:
            return False
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{folder}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            self._give_up()
            return False
        if not self._line(_REPLY_SECONDS).isdigit():
            self._give_up()
            return False
        return True

    def close(self) -> None:
        """End the warm process; runs that it started go on."""
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

    def _line(self, seconds: float) -> bytes:
        """The next line of the warm process, without its end; empty when none came in time. It writes whole lines."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        came, _, _ = select.select([descriptor], [], [], seconds)
        if not came:
            return b""
        line = os.read(descriptor, 64).strip()
        if not line:  # its end of the pipe is closed: it died
            self._give_up()
        return line

    def _give_up(self) -> None:
        if self._process is None:
            return
        code = self._process.poll()
        log.warning("the warm cluster failed (exit code %s); see %s", code, self._state / "warm.log")
        self.close()
        self._not_before = time.monotonic() + _AGAIN_AFTER
