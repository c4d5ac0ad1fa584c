"""What README, docs and the other pages name exists: files, make targets, modules, imports, settings, Dags."""

from __future__ import annotations

import importlib
import importlib.util
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from local.nodes import dag_ids
from ml.config import FeatureTableConfig, ModelConfig, PlatformConfig, SourceConfig, load_project

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
KINDS = (SourceConfig, FeatureTableConfig, ModelConfig, PlatformConfig)
# tables and assets whose first word is also a section of a config file
OTHER_NAMES = {"features.customers", "features.products", "features.training_set", "arrivals.asked", "arrivals.noticed"}
# of releases before 0.3, on the pages that say what became of them
FORMER_DAGS = {"churn_arrivals", "churn_calendar", "churn_features", "churn_ingest", "churn_load_history"}
FORMER_SETTINGS = {
    "clean.max_abs_amount",
    "clean.max_abs_quantity",
    "landing.table",
    "schedule.ask_again_minutes",
    "schedule.calendar",
    "schedule.sweep",
}
FOLDERS = ("config", "dags", "docker", "docs", "include", "local", "plugins", "src", "standins", "tests")


def page_ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code(text: str) -> Iterator[str]:
    """Code spans and indented lines."""
    yield from re.findall(r"`([^`\n]+)`", text)
    yield from (line.strip() for line in text.splitlines() if line.startswith("    "))


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_links_have_a_target(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_named_files_exist(page: Path) -> None:
    named = {
        path.rstrip("/")
        for span in code(page.read_text(encoding="utf-8"))
        for path in re.findall(rf"(?<![\w/.<-])(?:{'|'.join(FOLDERS)})/[\w./-]*", span)
    }
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_named_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {t for span in code(page.read_text(encoding="utf-8")) for t in re.findall(r"\bmake ([a-z][a-z-]*)", span)}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_named_modules_exist(page: Path) -> None:
    spans = code(page.read_text(encoding="utf-8"))
    named = {module for span in spans for module in re.findall(r"python -m ([a-z][\w.]*)", span)}
    assert sorted(module for module in named if importlib.util.find_spec(module) is None) == []


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_imports_in_commands_resolve(page: Path) -> None:
    spans = code(page.read_text(encoding="utf-8"))
    pairs = {pair for span in spans for pair in re.findall(r"\bfrom ((?:ml|standins|local)[\w.]*) import (\w+)", span)}
    modules = {(module, name): importlib.import_module(module) for module, name in pairs}
    missing = [pair for pair, module in modules.items() if not hasattr(module, pair[1])]
    assert [
        f"{module}.{name}" for module, name in missing if importlib.util.find_spec(f"{module}.{name}") is None
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_named_settings_exist(page: Path) -> None:
    sections = {name for kind in KINDS for name in kind.model_fields}
    text = page.read_text(encoding="utf-8")
    named = {key for key in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", text) if key.split(".")[0] in sections}
    others = {key for key in named if key.endswith((".onnx", ".sql", ".yaml"))} | OTHER_NAMES
    others |= FORMER_SETTINGS if page.name == "upgrading.md" else set()
    assert sorted(key for key in named - others if not is_setting(key)) == []


def is_setting(name: str) -> bool:
    """Whether a kind of config file has this key, written with dots."""
    return any(known(kind, name.split(".")) for kind in KINDS)


def known(kind: Any, key: list[str]) -> bool:
    """Whether a key exists within a type of settings; the keys of a mapping are names that a file chooses."""
    if not key:
        return True
    if typing.get_origin(kind) is dict:
        return known(typing.get_args(kind)[1], key[1:])
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return any(known(part, key) for part in typing.get_args(kind))
    field = kind.model_fields.get(key[0])
    return field is not None and known(field.annotation, key[1:])


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_named_dags_exist(page: Path) -> None:
    """Of the nodes of the shipped configuration, and of `<source>`, `<table>` and `<model>`."""
    project = load_project()
    ids = set(dag_ids(project))
    stages = "|".join(sorted(re.escape(path.stem) for path in (ROOT / "dags").glob("*.py"))) + "|calendar"
    nodes = {"source": "transactions", "table": "customers", "model": "churn"}
    text = page.read_text(encoding="utf-8")
    named = {f"{nodes[kind]}_{stage}" for kind, stage in re.findall(rf"<(source|table|model)>_({stages})\b", text)}
    names = "|".join([*project.sources, *project.feature_tables, *project.models])
    named |= {f"{name}_{stage}" for name, stage in re.findall(rf"\b({names})_({stages})\b", text)}
    former = FORMER_DAGS if page.name in ("upgrading.md", "CHANGELOG.md") else set()
    assert sorted(named - ids - former) == []


def test_every_decision_is_listed() -> None:
    listed = set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (ROOT / "docs/decisions/README.md").read_text()))
    assert listed == {path.name for path in (ROOT / "docs/decisions").glob("0*.md")}


def test_an_unknown_setting_is_found() -> None:
    assert is_setting("landing.bulk_days")
    assert is_setting("clean.settings.max_price"), "a name that the file chooses"
    assert is_setting("train.automl.folds"), "of a section that may be left out"
    assert not is_setting("landing.bulk_dayz")
    assert not is_setting("train.automl.fold")
