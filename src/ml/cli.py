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
from dataclasses import dataclass
from typing import Any

from ml.errors import StageError


@dataclass(frozen=True)
class Command:
    """What a stage is about: a source, a feature table, a model, or (None) all of them; and its summary."""

    node: str | None
    summary: str


OPTIONS = {"source": "source", "feature table": "table", "model": "model"}  # the option that names a node of a kind
STAGES = {
    "land": Command(None, "put day files of a demo data set where upstream puts them"),
    "ingest": Command("source", "bronze into silver and quarantine, every row accounted for"),
    "reenter": Command("source", "export a day's refused rows, and take them back corrected"),
    "validate": Command(None, "check a day's data, or a training set, against its expectations"),
    "features": Command("feature table", "a feature table's rows as known at a day's end"),
    "training_set": Command("model", "features and matured labels at past cut-offs"),
    "automl_data": Command("model", "the training part of a training set, for an AutoML job to learn from"),
    "trial": Command("model", "try parameters on the training part alone, for a sweep"),
    "train": Command("model", "fit, evaluate out of time, log and register"),
    "rebuild": Command("model", "train a version again from its record, and compare the trees"),
    "evaluate": Command("model", "measure a version again, beside the current champion"),
    "explain": Command("model", "why one row has this probability"),
    "gate": Command("model", "may this version become champion?"),
    "promote": Command("model", "put an approved version into production"),
    "rollback": Command("model", "put the previous version into production again"),
    "registry": Command("model", "what is and was in production, why, from which data, and what used it"),
    "score": Command("model", "the scores of a day"),
    "monitor": Command("model", "drift of a day's features against the training reference"),
    "days": Command(None, "how far each day has come, and what to do about those that are behind"),
    "history": Command(None, "when a day's partition was written, by whom, from what, and why"),
    "check": Command(None, "all config files and queries against each other, before deployment"),
    "new": Command(None, "scaffold the files of a source, a feature table or a model"),
    "migrate": Command(None, "bring the tables of an earlier release to this one's form"),
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of one stage; only its module is imported. `run` of the result is the stage's function."""
    parser = argparse.ArgumentParser(prog="ml", description="Stages of a model's life.")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="stage")
    for name, command in STAGES.items():
        stage = stages.add_parser(name, help=command.summary, description=command.summary)
        if argv[:1] == [name]:
            module = importlib.import_module(f"ml.stages.{name}")
            if command.node:
                _add_node_option(stage, command.node)
            module.add_arguments(stage)
            stage.set_defaults(run=module.run)
    return parser.parse_args(argv)


def _add_node_option(parser: argparse.ArgumentParser, kind: str) -> None:
    """`--source`, `--table` or `--model`. It may be left out when there is only one."""
    from ml.config import list_names

    names = list_names(kind)
    listed = ", ".join(names) or "none"
    default = names[0] if len(names) == 1 else None
    parser.add_argument(
        f"--{OPTIONS[kind]}", default=default, required=default is None, help=f"the {kind} (there are: {listed})"
    )


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
