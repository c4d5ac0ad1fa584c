"""Databricks clusters. Each is only a name for this machine; a job may only name one that exists."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from standins.core.cloud import Cloud
from standins.databricks.api import invalid, read_arguments
from standins.databricks.tasks import RUNTIME

CLUSTERS = "databricks.cluster"
DEFAULT = "churn-jobs"


class Clusters:
    """The clusters of the workspace. A document of kind `databricks.cluster` adds one."""

    def __init__(self, cloud: Cloud) -> None:
        self._documents = cloud.documents
        self._documents.create(CLUSTERS, DEFAULT, {"cluster_name": DEFAULT})

    def ids(self) -> set[str]:
        return {name for name, _ in self._documents.list(CLUSTERS)}

    def routes(self) -> APIRouter:
        router = APIRouter()

        def cluster_view(cluster_id: str, cluster: dict[str, Any]) -> dict[str, Any]:
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
        def get(arguments: Annotated[dict[str, Any], Depends(read_arguments)]) -> dict[str, Any]:
            cluster_id = str(arguments.get("cluster_id", ""))
            cluster = self._documents.get(CLUSTERS, cluster_id)
            if cluster is None:
                raise invalid(f"Cluster {cluster_id} does not exist")
            return cluster_view(cluster_id, cluster)

        @router.get("/clusters/list")
        def list_clusters() -> dict[str, Any]:
            return {"clusters": [cluster_view(*cluster) for cluster in self._documents.list(CLUSTERS)]}

        return router
