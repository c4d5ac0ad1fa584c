"""The tests write to the clone and to temporary folders only, and so does what they start."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support import confinement

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _confined(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--unconfined") or not confinement.is_possible():
        pytest.skip("the tests are not confined: --unconfined was given, or this kernel lacks Landlock")


@pytest.fixture
def outside() -> Path:
    """A file outside that this user could write, were it not for the confinement."""
    temporary = Path(tempfile.gettempdir()).resolve()
    candidates = (*ROOT.parents, *temporary.parents, Path("/var/tmp"))
    owned = [folder for folder in candidates if folder != temporary and temporary not in folder.parents]
    owned = [folder for folder in owned if os.access(folder, os.W_OK)]
    if not owned:
        pytest.skip("this user may write nowhere outside the clone and the temporary folders anyway")
    return owned[0] / f"written-by-a-test-{os.getpid()}"


def test_a_test_cannot_write_outside(outside: Path) -> None:
    with pytest.raises(PermissionError):
        outside.write_text("x")
    assert not outside.exists()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["sh", "-c", 'echo x > "$1"', "sh"], id="shell"),
        pytest.param([sys.executable, "-c", "import sys; open(sys.argv[1], 'w')"], id="python"),
        pytest.param(["mkdir"], id="folder"),
    ],
)
def test_a_process_of_a_test_cannot_write_outside(outside: Path, command: list[str]) -> None:
    assert subprocess.run([*command, str(outside)], capture_output=True, check=False).returncode != 0
    assert not outside.exists()


def test_the_home_folder_of_the_tests_is_temporary() -> None:
    assert Path(tempfile.gettempdir()) in Path.home().parents
