"""Reads what a page of the documentation asks its reader to do: commands, files, and changes of files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Step:
    """A command, a whole file, or a change of a file; `file` as in the checkout."""

    kind: Literal["command", "file", "change"]
    text: str
    file: str = ""


def read_steps(page: Path) -> list[Step]:
    """The fenced blocks of a page in order: `sh` has a command per line, `diff <file>` a change, `<language> <file>` a file.

    A block of another language without a file is an illustration.
    """
    steps: list[Step] = []
    for language, file, text in re.findall(
        r"^```(\w+) ?(\S*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S
    ):
        if language == "sh":
            steps += [Step("command", line) for line in text.splitlines() if line.strip()]
        elif file:
            steps.append(Step("change" if language == "diff" else "file", text, file))
    return steps


def change(text: str, diff: str) -> str:
    """The text after a change: lines that begin with a blank or `-` must be there, exactly once and in this order."""
    lines = diff.splitlines()
    old = "".join(f"{line[1:]}\n" for line in lines if line[:1] in ("", " ", "-"))
    new = "".join(f"{line[1:]}\n" for line in lines if line[:1] in ("", " ", "+"))
    assert text.count(old) == 1, f"the file has this {text.count(old)} times:\n{old}"
    return text.replace(old, new)
