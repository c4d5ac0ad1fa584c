"""The commit-msg hook accepts imperative subjects of at most 72 characters, and the hooks run tools that exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from local.commit_subject import IMPERATIVES, MAX_CHARACTERS, VERBS, find_problems, read_subject

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "subject",
    [
        "Add a route for pipeline runs",
        "Move src/ml, standins, plugins and tests into packages",
        "Speed up the gate's resampling",
        "Release the lease before the process ends",
        "Merge branch 'rooms'",
        'Revert "Add a route for pipeline runs"',
        "Pass the run key to every stage",
        "A" * MAX_CHARACTERS,
    ],
)
def test_a_subject_is_accepted(subject: str) -> None:
    assert find_problems(subject) == []


@pytest.mark.parametrize(
    ("subject", "problem"),
    [
        pytest.param("", "empty", id="empty"),
        pytest.param("A" * (MAX_CHARACTERS + 1), "73 characters", id="too-long"),
        pytest.param("Add a route.", "full stop", id="full-stop"),
        pytest.param("Added a route", "'Add'", id="past"),
        pytest.param("Adding a route", "'Add'", id="ing-form"),
        pytest.param("Adds a route", "'Add'", id="third-person"),
        pytest.param("fixes the lease", "'Fix'", id="lower-case"),
        pytest.param("Stopped the sweep", "'Stop'", id="doubled-consonant"),
        pytest.param("Removing the lease", "'Remove'", id="dropped-e"),
        pytest.param("Copies the log", "'Copy'", id="y-to-ies"),
        pytest.param("Made the gate pure", "'Make'", id="irregular"),
    ],
)
def test_a_subject_is_rejected(subject: str, problem: str) -> None:
    problems = find_problems(subject)
    assert len(problems) == 1
    assert problem in problems[0]


def test_every_problem_is_reported_at_once() -> None:
    assert len(find_problems(f"Added {'a' * MAX_CHARACTERS}.")) == 3


def test_no_rejected_form_is_itself_an_imperative() -> None:
    assert not IMPERATIVES.keys() & set(VERBS)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("Add a route\n\nClients need it.\n", id="with-a-body"),
        pytest.param("\n# Please enter the commit message\nAdd a route\n", id="after-a-comment-of-git"),
        pytest.param("fixup! Add a route\n", id="autosquash"),
    ],
)
def test_the_subject_is_the_first_line_of_the_message(message: str) -> None:
    assert read_subject(message) == "Add a route"


@pytest.mark.parametrize(("subject", "exit_code"), [("Add a route", 0), ("Added a route", 1)])
def test_the_hook_s_exit_code_says_whether_git_may_commit(tmp_path: Path, subject: str, exit_code: int) -> None:
    message = tmp_path / "COMMIT_EDITMSG"
    message.write_text(f"{subject}\n")
    command = [sys.executable, "-m", "local.commit_subject", str(message)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == exit_code
    assert ("'Add'" in result.stderr) == (exit_code == 1)


def test_the_hooks_run_the_tools_of_make_lint() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    commands = {hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude") for hook in hooks}
    makefile = (ROOT / "Makefile").read_text()
    linters = {"ruff check", "ruff format --check", "mypy"}
    assert linters <= commands
    assert all(f"-m {linter}" in makefile for linter in linters)
    assert all(hook["language"] == "system" for hook in hooks), "tools come from .venv, not from another registry"
