"""Assets, computes and datastores as azure-ai-ml sees them."""

from __future__ import annotations

import pytest
from azure.ai.ml import Input, MLClient
from azure.ai.ml.entities import AmlCompute, Data, Environment, Model
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

from tests.support.cloud.azure_ml_client import ARM, IMAGE, WORKSPACE, job, read_log, wait_for_end
from tests.support.cloud.standins import Standins


def test_the_workspace_has_its_id_and_storage_account(client: MLClient, workspace: Standins) -> None:
    result = client.workspaces.get(WORKSPACE)
    assert result.id == f"{ARM}/{WORKSPACE}"
    assert result.storage_account.endswith(workspace.account.name)


def test_an_environments_versions_are_fixed_and_latest_is_the_newest(client: MLClient) -> None:
    for version in ("1", "2"):
        client.environments.create_or_update(Environment(name="other", version=version, image=f"{IMAGE}-{version}"))
    assert client.environments.get("other", label="latest").version == "2"
    assert sorted(result.version for result in client.environments.list("other")) == ["1", "2"]
    again = client.environments.create_or_update(Environment(name="other", version="2", image=f"{IMAGE}-2"))
    assert again.version == "2"
    with pytest.raises(ResourceExistsError, match="differs in image"):
        client.environments.create_or_update(Environment(name="other", version="2", image="another"))
    with pytest.raises(ResourceNotFoundError):
        client.environments.get("other", "3")


def test_data_assets_name_a_uri_that_jobs_read(client: MLClient, workspace: Standins) -> None:
    workspace.account.container("azureml-blobstore").upload_blob("rows/r.csv", "a,b\n", overwrite=True)
    asset = client.data.create_or_update(
        Data(name="rows", version="1", type="uri_folder", path="azureml://datastores/workspaceblobstore/paths/rows")
    )
    assert client.data.get("rows", "1").path == asset.path
    definition = job(
        "cat ${{inputs.rows}}/r.csv", "reads-data", inputs={"rows": Input(type="uri_folder", path="azureml:rows:1")}
    )
    client.jobs.create_or_update(definition)
    assert wait_for_end(client, "reads-data").status == "Completed"
    assert read_log(workspace, "reads-data") == "a,b\n"


def test_models_are_registered_by_uri(client: MLClient) -> None:
    for version in ("1", "2"):
        client.models.create_or_update(
            Model(name="churn", version=version, path=f"azureml://datastores/workspaceblobstore/paths/m/{version}")
        )
    assert client.models.get("churn", "1").path.endswith("/m/1")
    assert client.models.get("churn", label="latest").version == "2"
    assert len(list(client.models.list("churn"))) == 2


def test_computes_exist_by_name(client: MLClient) -> None:
    assert client.compute.get("cpu-cluster").type == "amlcompute"
    client.compute.begin_create_or_update(AmlCompute(name="bigger", size="STANDARD_DS4_V2", max_instances=4)).result(30)
    assert {"cpu-cluster", "bigger"} <= {result.name for result in client.compute.list()}
    with pytest.raises(ResourceNotFoundError, match="was not found"):
        client.compute.get("none")


def test_the_default_datastore_is_the_workspaces(client: MLClient, workspace: Standins) -> None:
    result = client.datastores.get_default()
    assert (result.name, result.account_name) == ("workspaceblobstore", workspace.account.name)
    assert "workspaceartifactstore" in [store.name for store in client.datastores.list()]
