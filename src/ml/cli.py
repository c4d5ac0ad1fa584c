"""`python -m ml <stage> …`: the command line for Databricks tasks, Azure ML jobs and people at a shell.

Each stage is a module with `add_arguments(parser)` and `run(args) -> dict`; it is imported only when it is called. The
facts that it returns are printed last, as one JSON line. Exit codes: 0 done; 1 refused, with `{"refused": why}` as
the last line, or failed with a traceback; 2 wrong arguments. The last line tells the caller that a refused run is not
retryable.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from ml.errors import StageError

STAGES = {
    "land": "put day files of a demo source where upstream puts them",
    "ingest": "bronze into silver and quarantine, every row accounted for",
    "reenter": "export a day's refused rows, and take them back corrected",
    "validate": "check a day's data against its expectations",
    "features": "features of customers as known at a day's end",
    "training_set": "features and matured labels at past cut-offs",
    "automl_data": "the training part of a training set, for an AutoML job to learn from",
    "trial": "try parameters on the training part alone, for a sweep",
    "train": "fit, evaluate out of time, log and register",
    "rebuild": "train a version again from its record, and compare the trees",
    "evaluate": "measure a version again, beside the current champion",
    "explain": "why a customer has this probability",
    "gate": "may this version become champion?",
    "promote": "put an approved version into production",
    "rollback": "put the previous version into production again",
    "registry": "what is and was in production, why, from which data, and what used it",
    "score": "the champion's scores of a day",
    "monitor": "drift of a day's features against the training reference",
    "days": "how far each day has come, and what to do about those that are behind",
    "history": "when a day's partition was written, by whom, from what, and why",
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of one stage; only its module is imported. `run` of the result is the stage's function."""
    parser = argparse.ArgumentParser(prog="ml", description="Stages of a model's life.")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="stage")
    for name, summary in STAGES.items():
        stage = stages.add_parser(name, help=summary, description=summary)
        if argv[:1] == [name]:
            module = importlib.import_module(f"ml.stages.{name}")
            stage.add_argument("--model", default="churn", help="which config/<model>.yaml (default: churn)")
            module.add_arguments(stage)
            stage.set_defaults(run=module.run)
    return parser.parse_args(argv)


def run_stage(argv: Sequence[str]) -> dict[str, Any]:
    """Run one stage in this process and return its facts. Raises StageError or ConfigError for a refusal."""
    args = parse(argv)
    facts: dict[str, Any] = args.run(args)
    return facts


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the wheel and of `python -m ml`."""
    args = parse(list(sys.argv[1:] if argv is None else argv))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("azure").setLevel(logging.WARNING)  # the SDKs log every header of every request
    from ml.config import ConfigError

    try:
        facts = args.run(args)
    except (StageError, ConfigError) as error:
        print(f"{args.stage}: {error}", file=sys.stderr, flush=True)
        print(json.dumps({"refused": str(error)}), flush=True)
        raise SystemExit(1) from error
    print(json.dumps(facts, default=str), flush=True)
