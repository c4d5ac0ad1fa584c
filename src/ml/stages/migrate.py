"""`python -m ml migrate`: brings the tables of an earlier release to this one's form.

It is refused while a run is active: every lease that the lake has is held meanwhile. A second call has no effect.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from typing import Any

from ml.config import load_project
from ml.errors import StageError
from ml.migration import per_node
from ml.storage import leases, stores
from ml.storage.leases import LeaseError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Facts: written (rows of each table that was rewritten; empty when the lake has this release's form), seconds."""
    del args
    started = time.monotonic()
    project = load_project()
    lake = stores.lake()
    with ExitStack() as held:
        for blob in lake.list(f"{leases.FOLDER}/"):
            try:
                held.enter_context(leases.hold(lake, blob.name, "ml migrate", 0))
            except LeaseError as error:
                raise StageError(
                    f"a run is active: {error}. Pause the Dags, wait for their runs, then migrate"
                ) from error
        written = per_node.migrate(project)
    for table, rows in written.items():
        print(f"{table}: {rows} rows")
    if not written:
        print("nothing to migrate: the tables have this release's form")
    return {"written": written, "seconds": round(time.monotonic() - started, 2)}
