"""Write the files of a new source, feature table or model: config, SQL, expectations, SQL cases and a small data file.

They are valid at once; comments that begin with TODO say what to decide. Nothing that exists is overwritten.
"""

from __future__ import annotations

import argparse
from typing import Any

from ml.check.scaffold import KINDS, scaffold

NEXT_STEPS = {
    "source": "copy include/examples/{name}/ to {name}/ in the landing container, then run: ingest --source {name}",
    "features": "run: features --table {name} --date D, for an ingested day D",
    "model": "run: training_set --model {name}, then train --model {name}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=tuple(KINDS), help="what to add")
    parser.add_argument("name", help="lower-case letters, digits and _; the name of its file, tables and Dags")
    parser.add_argument("--like", metavar="EXISTING", help="copy the files of this one instead of the template")
    parser.add_argument(
        "--on", metavar="TABLE", help="what it is built on: silver.… for features, a feature table for a model"
    )
    parser.add_argument("--entity", metavar="COLUMN", help="of a new source: the column that says whose a row is")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Facts: kind, name, files. Raises StageError when a file exists or would be wrong; then nothing is written."""
    files = scaffold(args.kind, args.name, like=args.like, on=args.on, entity=args.entity)
    for file in files:
        print(f"written: {file}")
    print(f"next: decide what the TODOs ask, run check, and {NEXT_STEPS[args.kind].format(name=args.name)}")
    return {"kind": args.kind, "name": args.name, "files": [str(file) for file in files]}
