"""A small business that `new` has written: a source `visits`, a feature table `members` and a model `lapse`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ml.check import Checked, check_project
from ml.check.scaffold import scaffold
from ml.resources import resource_dir


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small-business")
    (folder / "config").mkdir()
    shutil.copy(resource_dir("config") / "platform.yaml", folder / "config")
    (folder / "sql").mkdir()
    (folder / "expectations").mkdir()
    for suite in ("arrival", "silver", "training"):
        shutil.copy(resource_dir("expectations") / f"{suite}.yaml", folder / "expectations")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ML_RESOURCES", str(folder))
        scaffold("source", "visits")
        scaffold("features", "members")
        scaffold("model", "lapse")
    return folder


class Project:
    """A copy of the small business, to be changed by one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / name.removeprefix("include/")

    def change(self, name: str, old: str, new: str) -> None:
        """Replace a text of a file, which must be there; `name` as in the checkout."""
        text = self.path(name).read_text(encoding="utf-8")
        assert old in text, f"{name} has no {old!r}"
        self.write(name, text.replace(old, new))

    def write(self, name: str, text: str) -> None:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_text(text, encoding="utf-8")

    def check(self, *files: str) -> Checked:
        return check_project([str(self.path(file)) for file in files], spark=False)

    def problems(self, *files: str) -> list[str]:
        return [str(problem) for problem in self.check(*files).problems]


@pytest.fixture
def project(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    folder = tmp_path / "resources"
    shutil.copytree(written, folder)
    monkeypatch.setenv("ML_RESOURCES", str(folder))
    return Project(folder)
