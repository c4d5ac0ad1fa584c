"""A token that expires during a wait: the next poll gets a new one, and the wait goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.cloud.standins import Account, Standins
from tests.support.components.airflow import triggerer_of, variables_of
from tests.support.components.remote_services import SERVICES, prepare
from tests.support.components.task_contexts import Ti, context_of
from tests.support.components.triggers import Triggerer, deferred_by

SECONDS = 3  # lifetime of a token; Entra ID gives an hour


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, new_account: Callable[[], Account]) -> Iterator[Standins]:
    account = new_account()
    for name in ("landing", "lake", "azureml-blobstore"):
        account.container(name)
    cloud = Standins(tmp_path_factory.mktemp("standins"), account, {"STANDINS_TOKEN_SECONDS": str(SECONDS)})
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def waiting(short: Standins) -> Iterator[Triggerer]:
    with triggerer_of(variables_of(short)) as process:
        yield process


@pytest.mark.parametrize("name", ["data-factory", "azure-ml", "power-bi"])  # Databricks has the Connection's token
def test_is_renewed(short: Standins, waiting: Triggerer, monkeypatch: pytest.MonkeyPatch, ti: Ti, name: str) -> None:
    for variable, value in variables_of(short).items():
        monkeypatch.setenv(variable, value)
    prepare(short)
    service = SERVICES[name]
    context = context_of(ti)
    with short.http() as http:
        fault = {"match": {"method": service.submit[0], "path": service.submit[1]}}
        fault["do"] = {"run": {"how": "fails", "seconds": 3 * SECONDS}}
        http.post("/faults", json=fault).raise_for_status()
        deferred = deferred_by(service.make(), context)
        with pytest.raises(Exception, match="ended Failed"):
            waiting.finish(deferred, service.make, context)
    assert len(service.entries(short, ti)) == 1
