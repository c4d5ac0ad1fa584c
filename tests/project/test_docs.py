"""What README, docs and the other pages name exists: files, make targets, modules, imports, settings, Dags."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from ml.config import ModelConfig

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
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
    sections = ModelConfig.model_fields
    text = page.read_text(encoding="utf-8")
    named = {key for key in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", text) if key.split(".")[0] in sections}
    others = {"features.customers", "features.training_set"} | {key for key in named if key.endswith((".onnx", ".sql"))}
    assert sorted(key for key in named - others if not known(ModelConfig, key.split("."))) == []


def known(kind: type[BaseModel], key: list[str]) -> bool:
    field = kind.model_fields.get(key[0])
    if field is None or len(key) == 1:
        return field is not None
    inner = field.annotation
    return isinstance(inner, type) and issubclass(inner, BaseModel) and known(inner, key[1:])


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_named_dags_exist(page: Path) -> None:
    stages = set(re.findall(r"`churn_(\w+)`", page.read_text(encoding="utf-8")))
    files = {path.stem for path in (ROOT / "dags").glob("*.py")} - {"calendar_days"} | {"calendar"}
    assert stages <= files


def test_every_decision_is_listed() -> None:
    listed = set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (ROOT / "docs/decisions/README.md").read_text()))
    assert listed == {path.name for path in (ROOT / "docs/decisions").glob("0*.md")}


def test_an_unknown_setting_is_found() -> None:
    assert known(ModelConfig, ["landing", "bulk_days"])
    assert not known(ModelConfig, ["landing", "bulk_dayz"])
