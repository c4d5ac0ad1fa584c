"""Checks suites of expectations: their types, the columns that they name, and the config keys that they look up."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ml.check.arrivals import KEYS
from ml.check.findings import Findings
from ml.config import ConfigError, ModelConfig, Project, SourceConfig, list_names
from ml.config.project import model_file, one_of, source_file
from ml.resources import resource_dir
from ml.validate import expectations
from ml.validate.expectations import Addition, Expectation, Suite

if TYPE_CHECKING:
    import pyarrow as pa

Frames = Mapping[str, Sequence[str]]  # the columns of each frame; see ml.validate.inputs

FILE_COLUMNS = ("name", "received", "problem", "extra_columns")
DAY_COLUMNS = (
    "day", "received", "silver", "quarantined", "duplicates", "unaccounted", "silver_rows", "quarantine_rows",
)  # fmt: skip
FEATURE_COLUMNS = ("name", "not_as_known", "asks_for_later", "alone", "example")
TRAINING_COLUMNS = ("split", "split_and_label", "learnt_until", "tested_from", "_inputs", "_label_export")
_COLUMN_KEYS = ("column", "column_A", "column_B")
_COLUMN_LISTS = ("column_list", "column_set")


def check_suites(project: Project, silver: Mapping[str, pa.Table], findings: Findings) -> None:
    """Check every suite of every source and model. Columns of silver are checked where its rows could be generated."""
    for source in project.sources.values():
        arrived = {"rows": (*source.column_names, *KEYS[1:]), "files": FILE_COLUMNS}
        _check_suite("arrival", source, source_file(source.source), arrived, findings)
        if source.table in silver:
            on = ("occurred_on",) if source.time is not None else ()
            clean = {"rows": (*silver[source.table].schema.names, *on), "days": DAY_COLUMNS}
            _check_suite("silver", source, source_file(source.source), clean, findings)
    for model in project.models.values():
        columns = (model.entity, "as_of", *model.feature_names, model.label.name, *TRAINING_COLUMNS)
        training = {"rows": columns, "features": FEATURE_COLUMNS}
        _check_suite("training", model, model_file(model.model), training, findings)
    _check_strays(findings)


def _check_suite(
    name: str, config: SourceConfig | ModelConfig, config_file: str, frames: Frames, findings: Findings
) -> None:
    common, own = f"{name}.yaml", f"{config.name}/{name}.yaml"
    kinds: dict[str, type[Suite] | type[Addition]] = {common: Suite, own: Addition}
    for file, kind in kinds.items():
        path = resource_dir("expectations") / file
        place = f"include/expectations/{file}"
        if (kind is Addition and not path.exists()) or not findings.concerns((place, config_file)):
            continue
        try:
            suite: Suite | Addition = expectations.read_file(path, kind)
        except ConfigError as error:
            for line in _without(path, error).split("\n"):
                findings.add(place, "", line.strip(), config_file)
            continue
        for each in suite.expectations:
            _check_expectation(path, place, each, config, config_file, frames, findings)


def _check_expectation(
    path: Path, place: str, expectation: Expectation, config: SourceConfig | ModelConfig, config_file: str, frames: Frames,
    findings: Findings,
) -> None:  # fmt: skip
    key = f"'{expectation.description}'"
    if expectation.type not in (types := known_types()):
        findings.add(place, key, f"there is no expectation {expectation.type}; {one_of(expectation.type, types)}")
    try:
        filled = expectations.fill_in(path, [expectation], config)
    except ConfigError as error:
        message = _without(path, error).removeprefix(f"{key}: ")
        findings.add(place, key, f"{message}; correct the key, or set meta.needs", config_file)
        return
    frame = expectation.meta.of
    if frame not in frames:
        findings.add(place, key, f"meta.of is {frame}; {one_of(frame, frames)}")
        return
    for each in filled:
        named = [each.kwargs[key] for key in _COLUMN_KEYS if key in each.kwargs]
        named += [column for key in _COLUMN_LISTS for column in each.kwargs.get(key, ())]
        for column in named:
            if column not in frames[frame]:
                close = one_of(str(column), frames[frame])
                findings.add(place, key, f"{frame} of {config.name} has no column {column}; {close}", config_file)


def _check_strays(findings: Findings) -> None:
    """Folders and files that no source or model reads: a misspelt name would switch expectations off."""
    folder = resource_dir("expectations")
    suites = {"arrival", "silver", "training"}
    sources, models = list_names("source"), list_names("model")  # also those that cannot be read
    for path in sorted(folder.rglob("*.yaml")):
        owner, name = path.parent.name, path.stem
        place = f"include/expectations/{path.relative_to(folder).as_posix()}"
        if path.parent != folder and owner not in {*sources, *models}:
            known = sorted({*sources, *models})
            findings.add(
                place, "", f"there is no source or model {owner}, so nothing reads this file; {one_of(owner, known)}"
            )
        elif name not in suites:
            findings.add(place, "", f"there is no suite {name}, so nothing reads this file; {one_of(name, suites)}")
        elif path.parent != folder and (name == "training") != (owner in models) and not (
            owner in models and owner in sources
        ):  # fmt: skip
            kind = "a model has training" if owner in models else "a source has arrival and silver"
            findings.add(place, "", f"nothing reads this file: {kind}; rename it")


@cache
def known_types() -> frozenset[str]:
    """The expectations of Great Expectations by name; from the names of its files, because importing it takes seconds."""
    package = importlib.util.find_spec("great_expectations")
    assert package is not None
    assert package.origin is not None
    return frozenset(path.stem for path in (Path(package.origin).parent / "expectations" / "core").glob("expect_*.py"))


def _without(path: Path, error: ConfigError) -> str:
    text = str(error).removeprefix(f"{path}:").strip()
    return text.replace(str(resource_dir("config")), "config")
