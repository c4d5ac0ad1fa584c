"""Stages as called from the command line, but in the test's process."""

from __future__ import annotations

from typing import Any

from ml.cli import run_stage


def ml(stage: str, **arguments: object) -> dict[str, Any]:
    """The facts of `python -m ml <stage> --name value …`; an argument that is None is left out.

    Raises StageError where the command would print one sentence and exit with 1.
    """
    options = [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items() if value is not None]
    return run_stage([stage, *options])
