"""Writes the files of a new source, feature table or model: config, SQL, expectations, SQL cases and a small data file.

They come from the templates beside this file, or from the files of an existing one. Either every file is written, and
`check` finds nothing wrong in them, or none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ml.check.days import CUTOFF
from ml.check.project import check_project
from ml.check.scaffold.copies import copy_feature_table, copy_model, copy_source
from ml.check.scaffold.schemas import feature_schema, silver_schema
from ml.config import ConfigError, FeatureTableConfig, Project, SourceConfig
from ml.config.load import config_path
from ml.config.project import one_of, read_project
from ml.config.types import NAME
from ml.errors import StageError
from ml.resources import resource_dir

KINDS = {"source": "source", "features": "feature table", "model": "model"}
TEMPLATES = Path(__file__).parent / "templates"
ENTITY = "entity_id"  # of a source from the template: whose row it is
LABEL = "inactive"  # what a model from the template predicts


@dataclass(frozen=True)
class Places:
    """Where the files of a project are, by their paths in the checkout."""

    root: Path
    sql: Path

    @classmethod
    def of_this_project(cls) -> Places:
        config, sql = resource_dir("config"), resource_dir("sql")
        if config.parent.name == "_data":
            raise StageError("the installed package cannot be changed: run new in a checkout, or set ML_RESOURCES")
        return cls(config.parent, sql)

    def path(self, name: str) -> Path:
        """The path of a file such as `config/models/churn.yaml` or `include/sql/labels/no_purchase.sql`."""
        first, _, rest = name.partition("/")
        if first == "config":
            return resource_dir("config") / rest
        if name.startswith("include/expectations/"):
            return resource_dir("expectations") / name.removeprefix("include/expectations/")
        if name.startswith("include/"):
            return self.sql.parent / name.removeprefix("include/")
        return self.root / name


def scaffold(
    kind: str, name: str, *, like: str | None = None, on: str | None = None, entity: str | None = None
) -> list[Path]:
    """Write the files of a new node and return their paths.

    `like` names an existing one to copy. `on` is what a template is built on: a table in silver for a feature table, a
    feature table for a model; needed when there are several. `entity` is the column of a new source that says whose a row
    is. Raises StageError or ConfigError and then writes nothing.
    """
    if (config := config_path(KINDS[kind], name)).exists():
        raise StageError(f"{config} is already there, and not overwritten. Choose another name")
    places = Places.of_this_project()
    project = read_project()
    if like is not None and on is not None:
        raise StageError("--on is for a template; with --like the new files are built on what the copied ones are")
    if entity is not None and (kind != "source" or like is not None):
        raise StageError("--entity is for a source from the template; others have the entity of what they are built on")
    if entity is not None and not re.fullmatch(NAME, entity, re.ASCII):
        raise StageError(f"--entity {entity!r}: lower-case letters, digits and _ only")
    if like is not None:
        texts = _copies(project, kind, name, like)
    elif kind == "source":
        texts = _source(name, on, entity or ENTITY)
    else:
        texts = _feature_table(project, name, on) if kind == "features" else _model(project, name, on)
    files = {places.path(file): text for file, text in texts.items()}
    if present := sorted(str(path) for path in files if path.exists()):
        raise StageError(
            f"already there, and not overwritten: {', '.join(present)}. Choose another name, or remove them"
        )
    _write(files)
    try:
        checked = check_project([str(path) for path in files if path.suffix in (".yaml", ".sql") and _is_checked(path)])
    except Exception:
        _remove(files)
        raise
    if checked.problems:
        _remove(files)
        raise StageError(
            "nothing was written; the new files would be wrong:\n  " + "\n  ".join(map(str, checked.problems))
        )
    return list(files)


def _is_checked(path: Path) -> bool:
    kinds = ("config", "sql", "expectations")
    return any(path.is_relative_to(resource_dir(kind)) for kind in kinds)  # type: ignore[arg-type]


def _write(files: Mapping[Path, str]) -> None:
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _remove(files: Mapping[Path, str]) -> None:
    for path in files:
        path.unlink()


def _copies(project: Project, kind: str, name: str, like: str) -> dict[str, str]:
    known = {"source": project.sources, "features": project.feature_tables, "model": project.models}[kind]
    if like not in known:
        raise StageError(f"there is no {KINDS[kind]} {like} to copy; {one_of(like, known)}")
    if kind == "source":
        return copy_source(project.sources[like], name)
    if kind == "features":
        return copy_feature_table(project.feature_tables[like], name)
    return copy_model(project.models[like], name)


def _source(name: str, on: str | None, entity: str) -> dict[str, str]:
    if on is not None:
        raise StageError("a source is built on nothing: leave --on out")
    return _fill(
        {"name": name, "entity": entity, "day": str(CUTOFF)},
        {
            f"config/sources/{name}.yaml": "source.yaml",
            f"include/sql/sources/{name}.sql": "source.sql",
            f"include/expectations/{name}/arrival.yaml": "source_arrival.yaml",
            f"include/expectations/{name}/silver.yaml": "source_silver.yaml",
            f"include/examples/{name}/{CUTOFF}/{name}.csv": "source.csv",
            f"tests/sql/sources/{name}.yaml": "source_cases.yaml",
        },
    )


def _feature_table(project: Project, name: str, on: str | None) -> dict[str, str]:
    facts = {table: source for table, source in project.source_by_table.items() if source.kind == "facts"}
    table = _chosen(on, facts, "table of facts", "silver.…")
    values = {
        "name": name,
        "table": table,
        "short": table.rpartition(".")[2],
        "entity": _entity_of(facts[table], table),
    }
    return _fill(
        values,
        {
            f"config/features/{name}.yaml": "features.yaml",
            f"include/sql/features/{name}.sql": "features.sql",
            f"tests/sql/features/{name}.yaml": "features_cases.yaml",
        },
    )


def _model(project: Project, name: str, on: str | None) -> dict[str, str]:
    table = project.feature_tables[_chosen(on, project.feature_tables, "feature table", "…")]
    facts = next(each for each in table.inputs if project.source_of(each).kind == "facts")
    if table.entity not in silver_schema(project.source_of(facts), facts).names:
        raise StageError(
            f"{facts} has no column {table.entity}, so the template's label cannot be joined to {table.table}; "
            "copy a model with --like instead"
        )
    values = {
        "name": name, "table": table.table, "entity": table.entity, "facts": facts, "short": facts.rpartition(".")[2],
        "label": LABEL, "columns": ", ".join(_learnable(project, table)),
    }  # fmt: skip
    return _fill(
        values,
        {
            f"config/models/{name}.yaml": "model.yaml",
            f"include/sql/populations/{name}.sql": "population.sql",
            f"include/sql/labels/{name}.sql": "label.sql",
            f"tests/sql/populations/{name}.yaml": "population_cases.yaml",
            f"tests/sql/labels/{name}.yaml": "label_cases.yaml",
        },
    )


def _fill(values: Mapping[str, str], files: Mapping[str, str]) -> dict[str, str]:
    """Each template with the values in place of `@name@`."""

    def fill(template: str) -> str:
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        return re.sub(r"@([a-z]+)@", lambda match: values[match[1]], text)

    return {file: fill(template) for file, template in files.items()}


def _chosen(on: str | None, known: Mapping[str, object], what: str, form: str) -> str:
    if on is not None and on not in known:
        raise StageError(f"--on {on}: there is no such {what}; {one_of(on, known)}")
    if on is None and len(known) != 1:
        listed = ", ".join(sorted(known)) or "none yet: add a source first"
        raise StageError(f"say on which {what} it is built, with --on {form}; there are: {listed}")
    return on or next(iter(known))


def _entity_of(source: SourceConfig, table: str) -> str:
    """The column that a row of facts is about: the first required id, else the first required text."""
    schema = silver_schema(source, table)
    required = [name for name in source.required_columns if name in schema.names]
    ids = [name for name in required if name.endswith("_id") or name == "id"]
    texts = [name for name in required if str(schema.field(name).type) == "string"]
    if not (ids or texts):
        raise StageError(f"{table} has no required column that could be an entity; it has {', '.join(schema.names)}")
    return (ids or texts)[0]


def _learnable(project: Project, table: FeatureTableConfig) -> list[str]:
    """The columns of a feature table that a model can learn from."""
    schema = feature_schema(project, table)
    kinds = ("int64", "double", "bool", "string")
    names = [field.name for field in schema if str(field.type) in kinds and field.name != table.entity]
    if not names:
        raise ConfigError(f"include/sql/{table.query}.sql gives no column that a model can learn from")
    return names
