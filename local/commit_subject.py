"""Checks the subject of a commit message: `python -m local.commit_subject FILE`, the commit-msg hook of pre-commit.

The subject is in the imperative, has at most 72 characters and does not end in a full stop. Grammar is checked only by a
list of verbs that commit subjects often begin with: their past, -ing and third-person forms are rejected.
"""

from __future__ import annotations

import sys
from pathlib import Path

MAX_CHARACTERS = 72  # what `git log --oneline` shows on one line
AUTOSQUASH = ("fixup! ", "squash! ", "amend! ")  # git writes these itself, before the subject of another commit
VERBS = (
    "accept", "add", "adjust", "allow", "apply", "avoid", "build", "call", "change", "check", "clean", "close", "compare",
    "compute", "configure", "convert", "copy", "correct", "count", "create", "cut", "declare", "define", "delete",
    "describe", "disable", "document", "drop", "enable", "ensure", "exclude", "expect", "explain", "extend", "extract",
    "find", "fix", "format", "give", "handle", "hide", "hold", "ignore", "implement", "import", "improve", "include",
    "increase", "install", "introduce", "join", "keep", "limit", "link", "list", "load", "log", "make", "mark", "measure",
    "merge", "mention", "migrate", "move", "name", "open", "order", "pass", "pin", "prevent", "print", "promote", "put",
    "raise", "read", "record", "reduce", "refactor", "refuse", "reject", "release", "remove", "rename", "repair",
    "replace", "report", "require", "restore", "retry", "return", "revert", "rewrite", "run", "score", "set", "shorten",
    "show", "skip", "sort", "split", "start", "stop", "store", "support", "take", "test", "train", "update", "upgrade",
    "use", "validate", "verify", "wait", "write",
)  # fmt: skip
IRREGULAR = {"built": "build", "found": "find", "gave": "give", "held": "hold", "kept": "keep", "made": "make",
             "ran": "run", "took": "take", "written": "write", "wrote": "write"}  # fmt: skip


def _other_forms(verb: str) -> set[str]:
    """The past, -ing and third-person forms of a verb; some of them do not exist, which does no harm."""
    if verb[-1] == "e":
        return {f"{verb}s", f"{verb}d", f"{verb[:-1]}ing"}
    forms = {f"{verb}s", f"{verb}es", f"{verb}ed", f"{verb}ing", f"{verb}{verb[-1]}ed", f"{verb}{verb[-1]}ing"}
    return forms | ({f"{verb[:-1]}ies", f"{verb[:-1]}ied"} if verb[-1] == "y" else set())


IMPERATIVES = {form: verb for verb in VERBS for form in _other_forms(verb)} | IRREGULAR


def read_subject(message: str) -> str:
    """The first line that is neither empty nor one of git's comments, without autosquash prefixes."""
    lines = [line.strip() for line in message.splitlines() if line.strip() and not line.startswith("#")]
    subject = lines[0] if lines else ""
    while prefix := next((prefix for prefix in AUTOSQUASH if subject.startswith(prefix)), ""):
        subject = subject.removeprefix(prefix)
    return subject


def find_problems(subject: str) -> list[str]:
    """What is wrong with a subject, as sentences; an empty list if nothing is."""
    if not subject:
        return ["the subject is empty"]
    problems = []
    if len(subject) > MAX_CHARACTERS:
        problems.append(f"it has {len(subject)} characters; at most {MAX_CHARACTERS} are allowed")
    if subject.endswith("."):
        problems.append("it ends in a full stop; remove it")
    word = subject.split()[0].strip(":,")
    if verb := IMPERATIVES.get(word.lower()):
        problems.append(f"it begins with {word!r}; use the imperative, such as {verb.capitalize()!r}")
    return problems


def main(path: str) -> int:
    subject = read_subject(Path(path).read_text(encoding="utf-8"))
    problems = find_problems(subject)
    for problem in problems:
        print(f"commit subject {subject!r}: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
