"""What a check collects: problems, notes, the queries that ran, and the files that it is about."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ml.config.project import Problem
from ml.errors import StageError
from ml.resources import resource_dir

FOLDERS = {"config": "config", "include/sql": "sql", "include/expectations": "expectations"}


def query_file(name: str) -> str:
    return f"include/sql/{name}.sql"


def suite_file(name: str) -> str:
    return f"include/expectations/{name}.yaml"


@dataclass
class Findings:
    """`only`: the files whose problems are wanted, as in the checkout; None: all."""

    only: frozenset[str] | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    queries: set[str] = field(default_factory=set)

    def concerns(self, files: Iterable[str]) -> bool:
        """Whether any of these files is wanted."""
        return self.only is None or not self.only.isdisjoint(files)

    def add(self, file: str, key: str, message: str, *others: str) -> None:
        problem = Problem(file, key, message, others)
        if self.concerns((file, *others)) and str(problem) not in map(str, self.problems):
            self.problems.append(problem)

    def add_all(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.add(problem.file, problem.key, problem.message, *problem.others)


def name_files(paths: Collection[str]) -> frozenset[str] | None:
    """The files as in the checkout, wherever config, SQL and expectations are. None without paths.

    Raises StageError for a path that is none of these files.
    """
    if not paths:
        return None
    return frozenset(map(_name_file, paths))


def _name_file(text: str) -> str:
    path = Path(text).resolve()
    if not path.is_file():
        raise StageError(f"{text}: no such file")
    for prefix, kind in FOLDERS.items():
        folder = resource_dir(kind).resolve()  # type: ignore[arg-type]
        if path.is_relative_to(folder):
            return f"{prefix}/{path.relative_to(folder).as_posix()}"
    folders = ", ".join(str(resource_dir(kind)) for kind in FOLDERS.values())  # type: ignore[arg-type]
    raise StageError(f"{text}: not a file of config, SQL or expectations; these are below {folders}")
