"""The container that MLflow's server keeps artifacts in: `python -m local.containers`, before that server starts."""

from __future__ import annotations

from azure.core.exceptions import ResourceExistsError

from ml.storage.stores import container_client


def main() -> None:
    """Create it where it is missing; that it exists is no error."""
    try:
        container_client("mlflow").create_container()
    except ResourceExistsError:
        pass


if __name__ == "__main__":
    main()
