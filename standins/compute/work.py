"""The work of a run, and its status."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["wheel", "python_file", "module", "command"]
State = Literal["queued", "running", "ended"]

_SHELL_CHARACTERS = set("$`\\&|;<>()*?[]{}~#!\n")


@dataclass(frozen=True)
class Work:
    """The work of a run.

    `target` is a wheel's package name, a file (local path or blob), a module name, or a shell command. `downloads`
    are pairs (uri, path in the run's folder), fetched before the work; `uploads` are pairs (path in the run's folder,
    uri), delivered after success. An upload path that ends in a slash is a folder, which is created before the work.
    `timeout` is in seconds from the start; 0 means none.
    """

    kind: Kind
    target: str
    entry_point: str = ""
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    wheels: tuple[str, ...] = ()
    downloads: tuple[tuple[str, str], ...] = ()
    uploads: tuple[tuple[str, str], ...] = ()
    working_folder: str = "work"
    timeout: float = 0.0

    @classmethod
    def command(cls, line: str) -> Work:
        """The work of a shell command. A plain `python -m module …` needs no shell: the warm cluster can run it."""
        if not _SHELL_CHARACTERS & set(line):
            words = shlex.split(line)
            if len(words) > 2 and words[0] in ("python", "python3") and words[1] == "-m":
                return cls("module", words[2], arguments=tuple(words[3:]))
        return cls("command", line)


@dataclass(frozen=True)
class Status:
    """The status of a run. Times are seconds since the epoch, UTC.

    `reason` says why it ended: exited (see `exit_code`), canceled, timeout, killed (by a signal from outside), lost
    (its process disappeared without a result) or setup (its files could not be fetched; see `error`).
    """

    state: State
    started_at: float | None = None
    ended_at: float | None = None
    reason: str = ""
    exit_code: int | None = None
    error: str = ""
    trace: str = ""

    @property
    def succeeded(self) -> bool:
        return self.state == "ended" and self.reason == "exited" and self.exit_code == 0
