"""The sink of a Copy activity: Parquet files in a container, or one commit to a Delta table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from azure.storage.blob import ContainerClient

from standins.core import storage
from standins.core.cloud import Settings
from standins.data_factory.copy.definition import Copy
from standins.data_factory.copy.formats import CopyError


def upload(copy: Copy, client: ContainerClient, relative: PurePosixPath, path: Path) -> None:
    """Upload a Parquet file to the sink's folder, with its path below the source's folder (PreserveHierarchy)."""
    folder = copy.sink_dataset["typeProperties"]["location"].get("folderPath") or ""
    with path.open("rb") as file:
        client.upload_blob(str(PurePosixPath(folder, relative.with_suffix(".parquet"))), file, overwrite=True)


def commit_delta(copy: Copy, settings: Settings, files: list[Path], check: Callable[[], None]) -> int:
    """Append all rows in one commit; returns the size of the files in bytes.

    The commit carries the activity's run id, so that a resumed copy does not commit again.
    """
    from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

    if not files:
        return 0
    target = copy.sink_dataset["typeProperties"]
    uri = f"az://{storage.LAKE}/{target['database']}/{target['table']}"
    options = storage.delta_options(settings)
    size = sum(path.stat().st_size for path in files)
    if DeltaTable.is_deltatable(uri, options):
        table = DeltaTable(uri, storage_options=options)
        if table.transaction_version(copy.run_id) is not None:
            return size
    try:
        schema = pa.unify_schemas([pq.read_schema(path) for path in files], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise CopyError("UserErrorSchemaMappingInvalid", f"The files' columns do not agree: {error}.") from error

    def batches() -> Iterator[pa.RecordBatch]:
        for path in files:
            for batch in pq.ParquetFile(path).iter_batches():
                check()
                columns = [
                    batch.column(field.name).cast(field.type)
                    if field.name in batch.schema.names
                    else pa.nulls(batch.num_rows, field.type)
                    for field in schema
                ]
                yield pa.record_batch(columns, schema=schema)

    write_deltalake(
        uri,
        pa.RecordBatchReader.from_batches(schema, batches()),
        mode="append",
        storage_options=options,
        commit_properties=CommitProperties(app_transactions=[Transaction(copy.run_id, 1)]),
    )
    return size
