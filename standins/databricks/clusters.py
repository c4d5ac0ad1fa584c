"""Databricks clusters: names for this machine. Jobs may only name one that exists."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from standins.core.cloud import Cloud
from standins.databricks.api import arguments, invalid
from standins.databricks.tasks import RUNTIME

CLUSTERS = "databricks.cluster"
DEFAULT = "churn-jobs"


class Clusters:
    """The clusters that exist. More are made by adding a document of kind `databricks.cluster`."""

    def __init__(self, cloud: Cloud) -> None:
        self._documents = cloud.documents
        self._documents.create(CLUSTERS, DEFAULT, {"cluster_name": DEFAULT})

    def ids(self) -> set[str]:
        return {name for name, _ in self._documents.list(CLUSTERS)}

    def routes(self) -> APIRouter:
        router = APIRouter()

        def shown(cluster_id: str, cluster: dict[str, Any]) -> dict[str, Any]:
            return {
                "cluster_id": cluster_id,
                "cluster_name": cluster["cluster_name"],
                "state": "RUNNING",
                "state_message": "",
                "spark_version": f"{RUNTIME}.x-scala2.13",
                "node_type_id": "local",
                "num_workers": 0,
                "cluster_source": "API",
                "autotermination_minutes": 0,
            }

        @router.get("/clusters/get")
        def get(asked: Annotated[dict[str, Any], Depends(arguments)]) -> dict[str, Any]:
            cluster_id = str(asked.get("cluster_id", ""))
            cluster = self._documents.get(CLUSTERS, cluster_id)
            if cluster is None:
                raise invalid(f"Cluster {cluster_id} does not exist")
            return shown(cluster_id, cluster)

        @router.get("/clusters/list")
        def list_clusters() -> dict[str, Any]:
            return {"clusters": [shown(*found) for found in self._documents.list(CLUSTERS)]}

        return router
