"""`check` as people and pipelines call it: facts or one refusal with everything that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ml import cli
from tests.support.resources import Resources


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    cli.main(["check", "--no-spark", *arguments])
    facts: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return facts


def test_the_project_has_no_problem(capsys: pytest.CaptureFixture[str]) -> None:
    facts = call(capsys)
    assert facts["engines"] == ["duckdb"]
    assert facts["not_checked"] == []
    assert int(str(facts["queries"])) >= 6


def test_what_is_wrong_is_one_refusal(resources: Resources, capsys: pytest.CaptureFixture[str]) -> None:
    resources.write("config", "models/bad.yaml", "model: bad\n")
    resources.write("config", "features/worse.yaml", "table: wors\n")
    with pytest.raises(SystemExit) as ended:
        cli.main(["check", "--no-spark"])
    assert ended.value.code == 1
    refused = json.loads(capsys.readouterr().out.splitlines()[-1])["refused"]
    assert "config/models/bad.yaml: owner: missing" in refused
    assert "config/features/worse.yaml: entity: missing" in refused


def test_one_file_is_enough_to_ask_for(resources: Resources, capsys: pytest.CaptureFixture[str]) -> None:
    resources.write("config", "models/bad.yaml", "model: bad\n")
    good = resources.folder / "config" / "platform.yaml"
    call(capsys, str(good))


def test_a_path_that_is_no_such_file_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        cli.main(["check", str(tmp_path / "nosuch.yaml")])
    assert "no such file" in json.loads(capsys.readouterr().out.splitlines()[-1])["refused"]


def test_the_checkout_is_checked_before_each_commit() -> None:
    root = Path(__file__).resolve().parents[3]
    lint = (root / "Makefile").read_text().partition("lint:")[2].partition("\n\n")[0]
    assert "-m ml check" in lint
