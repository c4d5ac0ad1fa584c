"""Questions of an auditor: `python -m ml registry production | history | compare | lineage | feeds`.

Prints lines for people first; the facts are the last line, as with every stage.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from ml.config import load_model, load_project_of
from ml.console import parse_day
from ml.evaluate import record
from ml.registry import lineage, model_versions, production, questions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="question", required=True, metavar="question")
    command = commands.add_parser("production", help="which version is, or was at a moment, in production, and why")
    command.add_argument("--at", type=_parse_moment, help="a moment, such as 2026-11-03T10:00Z (default: now)")
    commands.add_parser("history", help="every decision: gate, approval, promotion, rollback")
    command = commands.add_parser("compare", help="two versions: their sources, metrics and decisions")
    command.add_argument("versions", nargs=2, metavar="version")
    command = commands.add_parser("lineage", help="from a row's score back to table versions and commit")
    command.add_argument("--score-day", type=parse_day, required=True)
    command.add_argument("--key", required=True, help="the row's key, as in the score table's first column")
    command = commands.add_parser("feeds", help="what used a table version: features, training sets, models, scores")
    command.add_argument("--table", required=True, help="a table in silver, a feature table or a training set")
    command.add_argument("--version", type=int, required=True)
    command.add_argument("--through", type=int, help="last version of a range, inclusive (default: --version alone)")


def _parse_moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: a moment such as 2026-11-03T10:00Z is needed") from error
    return moment.replace(tzinfo=moment.tzinfo or UTC)


def run(args: argparse.Namespace) -> dict[str, Any]:
    config = load_model(args.model)
    production.settle(config.model)  # completes a promotion whose process died, before it is reported
    match args.question:
        case "production":
            return questions.read_production(config.model, args.at)
        case "history":
            return questions.list_decisions(config.model)
        case "compare":
            versions = [model_versions.get_version(config.model, number) for number in args.versions]
            return questions.compare_versions(versions, [record.read(version) for version in versions])
        case "lineage":
            return lineage.trace_score(config, load_project_of(config), args.score_day, args.key)
    last = args.version if args.through is None else args.through
    return lineage.trace_table_version(config, load_project_of(config), args.table, args.version, last)
