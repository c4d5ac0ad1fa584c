"""Three pages followed as written, one after the other: a source, a feature table on it, and a model on that.

Their commands run in this process, on a copy of the project's config, SQL and expectations. Upstream, who puts files into the
landing container, and Data Factory, which copies them, are played by the test.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml.check import check_project
from ml.check.scaffold.write import Places
from ml.cli import run_stage
from ml.config import load_project
from ml.errors import StageError
from ml.resources import resource_dir
from ml.storage import stores, tables
from tests.support.data.businesses import copy
from tests.support.followed_pages import change, read_steps
from tests.support.models.small_world import empty_mlflow

ROOT = Path(__file__).resolve().parents[2]
SOURCE, FEATURES, MODEL = (ROOT / "docs" / f"add-a-{what}.md" for what in ("source", "feature-table", "model"))
HISTORY = [date(2024, 1, 1) + timedelta(n) for n in range(213)]
EXAMPLE_DAY = date(2024, 2, 29)


class Reader:
    """Does what a page says; keeps the facts of every command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: list[dict[str, Any]] = []

    def follow(self, page: Path, *, until: str = "", after: str = "") -> None:
        """Take the steps of a page up to, or after, the first command that has this text."""
        steps = read_steps(page)
        places = [n for n, step in enumerate(steps) if step.kind == "command" and (until or after) in step.text]
        steps = steps[: places[0]] if until else steps[places[0] :] if after else steps
        assert steps
        for step in steps:
            if step.kind == "command":
                self.run(shlex.split(step.text))
                continue
            path = Places.of_this_project().path(step.file)
            text = path.read_text(encoding="utf-8")  # a page changes files that a command has written
            path.write_text(change(text, step.text) if step.kind == "change" else step.text, encoding="utf-8")

    def run(self, words: list[str]) -> None:
        assert words[:2] == ["python", "-m"]
        if words[2] == "ml":
            self.facts.append(run_stage(words[3:]))
        else:
            result = subprocess.run(
                [sys.executable, *words[1:], "-q"], cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, result.stdout
            assert " passed" in result.stdout


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("followed")
    resources = folder / "resources"
    for kind in ("config", "sql", "expectations"):
        shutil.copytree(resource_dir(kind), resources / kind)  # type: ignore[arg-type]
    shutil.copytree(ROOT / "tests" / "sql", resources / "tests" / "sql")
    shutil.copy(empty_mlflow(), folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # MLflow puts the artifacts of a database on disk below the current folder
        patch.setenv("ML_RESOURCES", str(resources))
        patch.setenv("ML_ENVIRONMENT", "local")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        for name in ("landing", "lake", "reports"):
            (folder / name).mkdir()
            patch.setenv(f"{name.upper()}_URI", (folder / name).as_uri())
        yield Reader(folder)


def test_a_source_is_added_as_its_page_says(reader: Reader) -> None:
    reader.follow(SOURCE, until="--suite arrival")
    name = f"visits/{EXAMPLE_DAY}/visits.csv"
    stores.landing().write(name, (reader.folder / "resources" / "examples" / name).read_bytes())
    copy(stores.landing(), stores.lake(), [name])
    reader.follow(SOURCE, after="--suite arrival")
    clubs = tables.read("silver.visits").sort_by("happened_at")["club"].to_pylist()
    assert clubs == ["north", "south", "north", "unknown"]
    (arrived, (warning,)) = [facts["failed"] for facts in reader.facts if "failed" in facts]
    assert arrived == []
    assert warning.startswith("Nearly every visit names its club: 1 of 4 rows do not")


def test_a_feature_table_is_added_as_its_page_says(reader: Reader) -> None:
    reader.follow(FEATURES)
    rows = tables.read("features.members").sort_by("member_id").to_pylist()
    assert [(row["member_id"], row["total"], row["clubs"]) for row in rows] == [
        ("10001", 2, 1), ("10002", 1, 1), ("10003", 1, 1),
    ]  # fmt: skip
    assert set(load_project().feature_tables) >= {"members", "members_v2"}


def test_a_model_is_added_as_its_page_says(reader: Reader) -> None:
    reader.follow(MODEL, until="ml training_set")
    bring_history()
    reader.follow(MODEL, after="ml training_set")
    gate = next(facts for facts in reader.facts if "approved" in facts)
    assert gate["approved"], gate
    scores = tables.read("gold.lapse_scores")
    assert scores.num_rows > 100
    assert tables.read("gold.lapse_drift").num_rows > 0


def bring_history() -> None:
    """Half a year of visits: members come at rates of their own, and leave without notice."""
    random = np.random.default_rng(7)
    rates = random.gamma(1.5, 0.12, 500)
    joined = random.uniform(-60, 150, 500)
    left = joined + random.exponential(160, 500)
    names = []
    for number, day in enumerate(HISTORY):
        if day == EXAMPLE_DAY:
            continue
        lines = ["member_id,happened_at,category,club,amount"]
        come = np.flatnonzero((joined < number) & (left > number) & (random.random(500) < 1 - np.exp(-rates)))
        lines += [f"{10001 + n},{day}T{8 + n % 12:02d}:00:00,course,{('north', 'south')[n % 2]},12.50" for n in come]
        names.append(f"visits/{day}/history.csv")
        stores.landing().write(names[-1], "\n".join([*lines, ""]).encode())
    copy(stores.landing(), stores.lake(), names)
    days = f"{HISTORY[0]}..{HISTORY[-1]}"
    run_stage(["ingest", "--source", "visits", "--days", days, "--run-key", "history"])


def test_the_business_that_the_pages_build_is_right_on_both_engines(reader: Reader) -> None:
    checked = check_project()
    assert ([str(problem) for problem in checked.problems], list(checked.notes)) == ([], [])
    assert {"duckdb", "spark"} == set(checked.engines)


def test_a_page_cannot_be_followed_twice(reader: Reader) -> None:
    with pytest.raises(StageError, match="already there, and not overwritten"):
        reader.follow(SOURCE)


@pytest.mark.parametrize("page", [SOURCE, FEATURES, MODEL], ids=lambda page: page.stem)
def test_every_change_of_a_page_is_one_step(page: Path) -> None:
    kinds = [step.kind for step in read_steps(page)]
    assert kinds.count("change") >= 4
    assert kinds[0] == "command", "a page begins with a command that writes the files"


def test_a_change_that_does_not_fit_is_found() -> None:
    assert change("a\nb\nc\n", " a\n-b\n+B\n") == "a\nB\nc\n"
    with pytest.raises(AssertionError, match="0 times"):
        change("a\nb\n", " a\n-c\n")
