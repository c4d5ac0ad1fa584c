"""A workspace of the stand-ins, one per test module, and the SDK's client for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from azure.ai.ml import MLClient

from tests.support.cloud.azure_ml_client import connect, register_environment
from tests.support.cloud.standins import Account, Standins


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, new_account: Callable[[], Account]) -> Iterator[Standins]:
    """Modules whose jobs need more (MLflow, data) define their own."""
    account = new_account()
    account.container("lake")
    account.container("azureml-blobstore")
    cloud = Standins(tmp_path_factory.mktemp("azure-ml"), account, {"STANDINS_WARM": "never"})
    cloud.start()
    with pytest.MonkeyPatch.context() as monkeypatch:
        register_environment(connect(cloud, monkeypatch))
    yield cloud
    cloud.stop()


@pytest.fixture
def client(workspace: Standins, monkeypatch: pytest.MonkeyPatch) -> MLClient:
    return connect(workspace, monkeypatch)
