"""Creates the container for the MLflow server's artifacts: `python -m local.containers`, before that server starts."""

from __future__ import annotations

from azure.core.exceptions import ResourceExistsError

from ml.storage.stores import container_client


def main() -> None:
    """Create the container when it does not exist."""
    try:
        container_client("mlflow").create_container()
    except ResourceExistsError:
        pass


if __name__ == "__main__":
    main()
