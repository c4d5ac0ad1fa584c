"""Before any test imports Airflow: its files go to a temporary folder, and the shell's settings have no effect.

Tests, and the processes that they start, write to the clone and to temporary folders only: the kernel holds it
(`tests.support.confinement`), `--unconfined` switches it off.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.support import confinement

pytest_plugins = ["tests.support.cloud.standins", "tests.support.components.airflow", "tests.support.resources"]

WHOLE_MACHINE = "tests/loop/"
ROOT = Path(__file__).resolve().parents[1]
_HOME = tempfile.mkdtemp(prefix="home-of-tests-")
_AIRFLOW_HOME = f"{_HOME}/airflow"

for _name in [name for name in os.environ if name.startswith(("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_"))]:
    del os.environ[_name]
os.environ |= {
    "HOME": _HOME,  # libraries keep caches and settings there
    "AIRFLOW_HOME": _AIRFLOW_HOME,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_AIRFLOW_HOME}/airflow.db",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker's main module has no file, which PySpark takes for a doctest's
    sys.modules["__main__"].__file__ = str(Path(pytest.__file__).with_name("__main__.py"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--unconfined", action="store_true", help="let tests write anywhere: those that mount file systems need it"
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--unconfined") and confinement.is_possible():
        devices = (Path("/dev"), Path("/proc"), Path("/dev/shm"))
        confinement.confine([ROOT, Path(tempfile.gettempdir()).resolve(), *filter(Path.exists, devices)])


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole machine's tests take longest, so they begin first: another worker does all the rest meanwhile."""
    items.sort(key=lambda item: not item.nodeid.startswith(WHOLE_MACHINE))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Workers take whole files, and all files that share the whole machine together: there is one of it."""
    return ByMachine(config, log)


class ByMachine(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return WHOLE_MACHINE if nodeid.startswith(WHOLE_MACHINE) else nodeid.partition("::")[0]
