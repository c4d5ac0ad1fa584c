"""Config files: every error names file, key, what was found and what is allowed, and all are reported at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml.config import ConfigError, load_model, load_models
from ml.config.load import load_file
from ml.resources import resource_dir

SHIPPED = resource_dir("config") / "churn.yaml"
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Edit], Path]:
    """Writes the shipped settings after an edit, as a file called churn.yaml."""

    def write(edit: Edit) -> Path:
        settings = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
        edit(settings)
        path = tmp_path / "churn.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return path

    return write


def put(path: str, value: Any) -> Edit:
    """An edit that sets one key, given as `section.key`; a number is an index of a list."""

    def edit(settings: dict[str, Any]) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        target: Any = settings
        for part in parents:
            target = target[part]
        target[last] = value

    return edit


def drop(path: str) -> Edit:
    def edit(settings: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        target: Any = settings
        for part in parents:
            target = target[part]
        del target[last]

    return edit


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_file(path)
    message = str(caught.value)
    assert str(path) in message, "the message must name the file"
    return message


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        # an unknown key, at every level
        pytest.param(put("shedule", {}), ["shedule: unknown key", "schedule", "landing"], id="misspelt-section"),
        pytest.param(
            put("landing.bulk_dayz", 3), ["landing.bulk_dayz: unknown key", "bulk_days, empty_file, max_file_mb, max_file_rows, table"],
            id="misspelt-key",
        ),
        pytest.param(
            put("compute.azure_ml.computer", "x"),
            ["compute.azure_ml.computer: unknown key", "compute, environment, timeout_seconds"],
            id="misspelt-key-two-deep",
        ),
        pytest.param(
            put("gate.rules.0.atleast", 0.6),
            ["gate.rules.0.atleast: unknown key", "at_least, at_most, max_loss, metric"],
            id="misspelt-key-in-a-rule",
        ),
        pytest.param(
            put("score.bands.1.floor", 0.6), ["score.bands.1.floor: unknown key", "at_least, name"],
            id="misspelt-key-in-a-band",
        ),
        # a missing key
        pytest.param(
            put("train.sweep.sampling", "bayesian"),
            ["train.sweep", "bayesian sampling takes choice and uniform only; found others in: learning_rate"],
            id="bayesian-and-loguniform",
        ),
        pytest.param(drop("gate"), ["gate: missing"], id="section-missing"),
        pytest.param(drop("gate.min_rows"), ["gate.min_rows: missing"], id="key-missing"),
        pytest.param(put("gate.rules.0", {"at_least": 0.6}), ["gate.rules.0.metric: missing"], id="rule-without-metric"),
        # a value of another type
        pytest.param(put("landing.bulk_days", "31"), ["landing.bulk_days: found '31'", "integer"], id="text-for-a-number"),
        pytest.param(put("landing.bulk_days", 1.5), ["landing.bulk_days: found 1.5", "integer"], id="fraction-of-a-day"),
        pytest.param(put("landing.bulk_days", True), ["landing.bulk_days: found True", "integer"], id="boolean-for-a-number"),
        pytest.param(put("landing.bulk_days", None), ["landing.bulk_days: found None", "integer"], id="key-without-value"),
        pytest.param(put("owner", 7), ["owner: found 7", "string"], id="number-for-a-text"),
        pytest.param(put("gate", []), ["gate: found ()", "dictionary"], id="list-for-a-section"),
        pytest.param(put("gate.rules", 3), ["gate.rules: found 3", "tuple"], id="number-for-a-list"),
        pytest.param(put("train.params", {"num_leaves": [1]}), ["train.params.num_leaves"], id="list-for-a-parameter"),
        # a value out of range
        pytest.param(put("label.horizon_days", 0), ["label.horizon_days: found 0", "greater than or equal to 1"], id="no-days"),
        pytest.param(put("clean.max_abs_amount", 0), ["clean.max_abs_amount: found 0", "greater than 0"], id="zero-amount"),
        pytest.param(
            put("clean.max_quarantined_share", 60), ["clean.max_quarantined_share: found 60", "less than or equal to 1"],
            id="per-cent-for-a-share",
        ),
        pytest.param(put("evaluate.threshold", float("nan")), ["evaluate.threshold: found nan"], id="not-a-number"),
        pytest.param(put("monitor.psi_threshold", float("inf")), ["monitor.psi_threshold: found inf"], id="infinite"),
        pytest.param(put("evaluate.bootstrap", 10), ["evaluate.bootstrap: found 10", "100"], id="too-few-resamples"),
        pytest.param(put("score.rescore_days", -1), ["score.rescore_days: found -1", "0"], id="negative-days"),
        pytest.param(
            put("landing.empty_file", "ignore"), ["landing.empty_file: found 'ignore'", "'fail' or 'accept'"],
            id="not-an-allowed-value",
        ),
        pytest.param(put("train.algorithm", "xgboost"), ["train.algorithm: found 'xgboost'", "'lightgbm'"], id="unknown-algorithm"),
        pytest.param(put("features.table", "features"), ["features.table: found 'features'", "pattern"], id="table-without-layer"),
        pytest.param(put("landing.table", "../secrets"), ["landing.table: found '../secrets'", "pattern"], id="table-leaves-its-folder"),
        pytest.param(put("owner", ""), ["owner: found ''", "at least 1 character"], id="empty-owner"),
        # rules and bands
        pytest.param(
            put("gate.rules.0", {"metric": "roc_auc"}), ["gate.rules.0", "'roc_auc'", "at_least or at_most"],
            id="rule-without-bound",
        ),
        pytest.param(
            put("gate.rules.0", {"metric": "roc_auc", "at_least": 0.6, "at_most": 0.9}),
            ["gate.rules.0", "not both"],
            id="rule-with-two-bounds",
        ),
        pytest.param(put("gate.rules.0.metric", "auc"), ["gate.rules.0.metric: found 'auc'", "'roc_auc'"], id="unknown-metric"),
        pytest.param(put("gate.rules.0.max_loss", -0.1), ["gate.rules.0.max_loss: found -0.1"], id="negative-loss"),
        pytest.param(put("gate.rules.0.at_least", float("nan")), ["gate.rules.0.at_least: found nan"], id="bound-is-nan"),
        pytest.param(put("gate.rules", []), ["gate.rules: found ()", "at least 1"], id="gate-without-rules"),
        pytest.param(put("score.bands", []), ["score.bands: found ()", "at least 1"], id="no-bands"),
        pytest.param(
            put("score.bands", [{"name": "A", "at_least": 0.5}]), ["score.bands", "end at 0.0", "[0.5]"],
            id="bands-leave-a-gap",
        ),
        pytest.param(
            put("score.bands", [{"name": n, "at_least": f} for n, f in [("A", 0.2), ("B", 0.5), ("C", 0.0)]]),
            ["score.bands", "fall strictly", "[0.2, 0.5, 0.0]"],
            id="bands-do-not-fall",
        ),
        pytest.param(
            put("score.bands", [{"name": n, "at_least": f} for n, f in [("A", 0.5), ("B", 0.5), ("C", 0.0)]]),
            ["score.bands", "fall strictly"],
            id="bands-share-a-floor",
        ),
        pytest.param(
            put("score.bands", [{"name": "A", "at_least": 0.5}, {"name": "A", "at_least": 0.0}]),
            ["score.bands", "'A'"],
            id="bands-share-a-name",
        ),
        # a text that must have a certain form
        pytest.param(put("timezone", "Mars/Olympus"), ["timezone: found 'Mars/Olympus'", "IANA"], id="unknown-time-zone"),
        pytest.param(put("timezone", "../etc"), ["timezone: found '../etc'", "IANA"], id="time-zone-is-a-path"),
        pytest.param(put("timezone", ""), ["timezone: found ''"], id="empty-time-zone"),
        pytest.param(put("schedule.sweep", "every minute"), ["schedule.sweep: found 'every minute'", "cron"], id="not-a-schedule"),
        pytest.param(put("schedule.train", "0 25 * * *"), ["schedule.train: found '0 25 * * *'", "cron"], id="no-such-hour"),
        pytest.param(put("train.params", {"num_threads": 2}), ["train.params", "n_estimators must be set"], id="number-of-trees-missing"),
        pytest.param(put("train.params.seed", 1), ["train.params", "seed must not be set here"], id="seed-among-params"),
        pytest.param(put("model", "Churn"), ["model: found 'Churn'", "pattern"], id="name-in-capitals"),
        pytest.param(put("model", "margin"), ["model: found 'margin'", "'churn'"], id="name-is-not-the-file's"),
    ],
)  # fmt: skip
def test_a_bad_edit_is_named(written: Callable[[Edit], Path], edit: Edit, parts: list[str]) -> None:
    message = refusal(written(edit))
    for part in parts:
        assert part in message


def test_all_errors_are_reported_at_once(written: Callable[[Edit], Path]) -> None:
    def edit(settings: dict[str, Any]) -> None:
        put("landing.bulk_dayz", 3)(settings)
        put("gate.min_rows", "many")(settings)
        put("timezone", "Mars/Olympus")(settings)
        del settings["report"]

    message = refusal(written(edit))
    for key in ("landing.bulk_dayz", "gate.min_rows", "timezone", "report"):
        assert re.search(rf"^  {re.escape(key)}: ", message, re.MULTILINE), f"{key} is missing in:\n{message}"


def test_nothing_else_is_reported(written: Callable[[Edit], Path]) -> None:
    assert len(refusal(written(put("gate.min_rows", 0))).splitlines()) == 2  # the file, and the one key


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        pytest.param("", ["NoneType", "a mapping of settings is needed"], id="empty-file"),
        pytest.param("# nothing but a comment\n", ["a mapping of settings is needed"], id="only-a-comment"),
        pytest.param("- churn\n", ["list", "a mapping of settings is needed"], id="a-list"),
        pytest.param("just words", ["str", "a mapping of settings is needed"], id="a-text"),
        pytest.param("model: [churn", ["not YAML", "line 1"], id="not-yaml"),
        pytest.param("model: churn\n\towner: x\n", ["not YAML", "line 2"], id="indented-with-tabs"),
        pytest.param("model: !!python/object:os.system x\n", ["not YAML"], id="yaml-that-would-run-code"),
        pytest.param("model: churn\nmodel: churn\n", ["model", "occurs twice", "line 2"], id="key-repeated"),
        pytest.param("gate: {min_rows: 1, min_rows: 2}\n", ["min_rows", "occurs twice", "line 1"], id="nested-key-repeated"),
        pytest.param("1: churn\n", ["1: found 1", "strings"], id="key-is-a-number"),
    ],
)  # fmt: skip
def test_a_file_without_settings_is_refused(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "churn.yaml"
    path.write_text(text)
    message = refusal(path)
    for part in parts:
        assert part in message


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "churn.yaml"
    path.write_bytes(b"model: \xff\xfe")
    assert "UTF-8" in refusal(path)


def test_a_missing_file_lists_the_known_models(tmp_path: Path) -> None:
    (tmp_path / "margin.yaml").write_text("")
    message = refusal(tmp_path / "churn.yaml")
    assert "no such model; there are: margin" in message


@pytest.mark.parametrize("name", ["", "Churn", "../churn", "churn.yaml", "churn\n"])
def test_an_invalid_model_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="lower-case letters, digits and _ only"):
        load_model(name)


def test_the_shipped_file_loads() -> None:
    config = load_model("churn")
    assert config.model == "churn"
    assert config is load_model("churn"), "a file is read once"
    assert [config.model for config in load_models()] == sorted(p.stem for p in SHIPPED.parent.glob("*.yaml"))


def test_nothing_can_be_changed_after_loading() -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match="frozen"):
        load_model("churn").gate.min_rows = 1


def test_an_unquoted_date_is_refused_where_text_is_needed(written: Callable[[Edit], Path]) -> None:
    """YAML reads 2026-01-01 as a date; strict types refuse it where text is wanted."""
    assert "owner: found" in refusal(written(put("owner", datetime(2026, 1, 1, tzinfo=UTC).date())))


# Keys without a reason: their values are names and places.
_NAMES = {"model", "owner", "description", "experiment", "table", "name", "algorithm", "seed", "compute", "environment"}


def test_every_threshold_has_its_reason() -> None:
    """A number, a schedule or a choice has a comment on its line or on the one above."""
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    bare = []
    for above, line in zip(["", *lines], lines, strict=False):
        setting = re.match(r"\s*(?:- )?(\w+): *[^#\s]", line)
        if setting and setting[1] not in _NAMES and "#" not in line and not above.strip().startswith("#"):
            bare.append(line.strip())
    assert not bare, f"say why in {SHIPPED.name}: {bare}"
