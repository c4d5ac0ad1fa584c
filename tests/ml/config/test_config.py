"""Config files, each on its own: every error names file, key, what was found and what is allowed, and all at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from ml.config import (
    ConfigError,
    FeatureTableConfig,
    ModelConfig,
    PlatformConfig,
    SourceConfig,
    list_names,
    load_feature_table,
    load_model,
    load_models,
    load_platform,
    load_source,
)
from ml.config.load import load_file
from ml.resources import resource_dir
from tests.support.resources import Resources

Edit = Callable[[dict[str, Any]], object]
CONFIG = resource_dir("config")
FILES: dict[str, tuple[str, type[BaseModel]]] = {
    "source": ("sources/transactions", SourceConfig),
    "snapshot": ("sources/products", SourceConfig),
    "features": ("features/customers", FeatureTableConfig),
    "model": ("models/churn", ModelConfig),
    "platform": ("platform", PlatformConfig),
}


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[[str, Edit], str]:
    """Writes a shipped file after an edit, under its own name, and returns the message of its refusal."""

    def refuse(kind: str, edit: Edit) -> str:
        name, settings_class = FILES[kind]
        settings = yaml.safe_load((CONFIG / f"{name}.yaml").read_text(encoding="utf-8"))
        edit(settings)
        path = tmp_path / f"{name.rpartition('/')[2]}.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return refusal_of(path, settings_class)

    return refuse


def refusal_of(path: Path, kind: type[BaseModel] = ModelConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        load_file(path, kind)
    message = str(caught.value)
    assert str(path) in message, "the message must name the file"
    return message


def put(path: str, value: Any) -> Edit:
    """An edit that sets one key, given as `section.key`; a number is an index of a list, `/` stands for a dot in a key."""

    def edit(settings: dict[str, Any]) -> None:
        *parents, last = [int(part) if part.isdigit() else part.replace("/", ".") for part in path.split(".")]
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


def both(*edits: Edit) -> Edit:
    def edit(settings: dict[str, Any]) -> None:
        for each in edits:
            each(settings)

    return edit


def to_examples(settings: dict[str, Any]) -> None:
    """A model of features as one of examples."""
    columns = settings.pop("features")["customers"]
    del settings["population"]
    split = {"by": "day", "test_share": 0.2}
    settings["examples"] = {"table": "silver.loans", "columns": columns, "split": split, "restate_days": 31}
    settings["label"] = {"name": "bad"}
    for key in ("test_cutoffs", "train_cutoffs", "step_days", "min_history_days"):
        del settings["train"][key]


PARAMS = [
    # an unknown key, at every level
    ("source", put("ownr", "x"), ["ownr: unknown key", "clean, columns, daily, description, due, from, kind, landing, owner, source, time, timezone"], "misspelt-section-of-a-source"),
    ("source", put("landing.bulk_dayz", 3), ["landing.bulk_dayz: unknown key", "bulk_days, empty_file, max_file_mb, max_file_rows"], "misspelt-key-of-a-source"),
    ("source", put("from.container", "x"), ["from.container: unknown key", "allowed here: kind"], "misspelt-key-of-an-alias"),
    ("source", put("columns.amount", {"requierd": True}), ["columns.amount.requierd: unknown key", "required"], "misspelt-key-of-a-column"),
    ("features", put("inputs.silver/customer_days.windw", {}), ["windw: unknown key", "max_age, missing, wait_until, window"], "misspelt-key-of-an-edge"),
    ("features", put("inputs.silver/customer_days.window.bak", "all"), ["window.bak: unknown key", "back"], "misspelt-key-two-deep"),
    ("features", put("rebuild.date", "auto"), ["rebuild.date: unknown key", "code, data, restate_days, revision"], "misspelt-key-of-a-policy"),
    ("model", put("shedule", {}), ["shedule: unknown key", "schedule", "population"], "misspelt-section-of-a-model"),
    ("model", put("gate.rules.0.atleast", 0.6), ["gate.rules.0.atleast: unknown key", "at_least, at_most, max_loss, metric"], "misspelt-key-in-a-rule"),
    ("model", put("score.bands.1.floor", 0.6), ["score.bands.1.floor: unknown key", "at_least, name"], "misspelt-key-in-a-band"),
    ("model", put("landing", {}), ["landing: unknown key"], "section-of-a-source-in-a-model"),
    ("platform", put("compute.azure_ml.computer", "x"), ["compute.azure_ml.computer: unknown key", "compute, environment, timeout_seconds"], "misspelt-key-of-the-platform"),
    # a missing key
    ("source", drop("clean"), ["clean: missing"], "source-without-cleaning"),
    ("source", drop("from"), ["from: missing"], "source-from-nowhere"),
    ("features", drop("inputs"), ["inputs: missing"], "table-of-nothing"),
    ("features", drop("rebuild.code"), ["rebuild.code: missing"], "policy-half-written"),
    ("model", drop("gate"), ["gate: missing"], "section-missing"),
    ("model", drop("gate.min_rows"), ["gate.min_rows: missing"], "key-missing"),
    ("model", put("gate.rules.0", {"at_least": 0.6}), ["gate.rules.0.metric: missing"], "rule-without-metric"),
    # a value of another type
    ("source", put("landing.bulk_days", "31"), ["landing.bulk_days: found '31'", "integer"], "text-for-a-number"),
    ("source", put("landing.bulk_days", 1.5), ["landing.bulk_days: found 1.5", "integer"], "fraction-of-a-day"),
    ("source", put("landing.bulk_days", True), ["landing.bulk_days: found True", "integer"], "boolean-for-a-number"),
    ("source", put("landing.bulk_days", None), ["landing.bulk_days: found None", "integer"], "key-without-value"),
    ("source", put("columns.amount.required", "yes"), ["columns.amount.required: found 'yes'", "boolean"], "text-for-a-boolean"),
    ("source", put("clean.settings.max_abs_amount", [1]), ["clean.settings.max_abs_amount"], "list-for-a-setting"),
    ("model", put("owner", 7), ["owner: found 7", "string"], "number-for-a-text"),
    ("model", put("gate", []), ["gate: found ()", "dictionary"], "list-for-a-section"),
    ("model", put("gate.rules", 3), ["gate.rules: found 3", "tuple"], "number-for-a-list"),
    ("model", put("features.customers", "recency_days"), ["features.customers: found 'recency_days'", "tuple"], "text-for-columns"),
    ("model", put("train.params", {"num_leaves": [1]}), ["train.params.num_leaves"], "list-for-a-parameter"),
    # a value out of range
    ("model", put("label.horizon_days", 0), ["label.horizon_days: found 0", "greater than or equal to 1"], "no-days"),
    ("source", put("clean.max_quarantined_share", 60), ["clean.max_quarantined_share: found 60", "less than or equal to 1"], "per-cent-for-a-share"),
    ("features", put("rebuild.restate_days", 0), ["rebuild.restate_days: found 0"], "nothing-is-restated"),
    ("features", put("rebuild.revision", 0), ["rebuild.revision: found 0"], "revision-zero"),
    ("features", put("inputs", {}), ["inputs: found {}", "at least 1"], "no-inputs"),
    ("model", put("evaluate.threshold", float("nan")), ["evaluate.threshold: found nan"], "not-a-number"),
    ("model", put("monitor.psi_threshold", float("inf")), ["monitor.psi_threshold: found inf"], "infinite"),
    ("model", put("evaluate.bootstrap", 10), ["evaluate.bootstrap: found 10", "100"], "too-few-resamples"),
    ("model", put("score.rescore_days", -1), ["score.rescore_days: found -1", "0"], "negative-days"),
    ("source", put("landing.empty_file", "ignore"), ["landing.empty_file: found 'ignore'", "'fail' or 'accept'"], "not-an-allowed-value"),
    ("model", put("train.algorithm", "xgboost"), ["train.algorithm: found 'xgboost'", "'lightgbm'"], "unknown-algorithm"),
    ("model", put("train.table", "training_set"), ["train.table: found 'training_set'", "pattern"], "table-without-layer"),
    ("model", put("owner", ""), ["owner: found ''", "at least 1 character"], "empty-owner"),
    ("model", put("features.customers", []), ["features.customers: found ()", "at least 1"], "no-columns"),
    # sources
    ("source", put("from.kind", "sql"), ["from.kind: found 'sql'", "sql sources are not built yet; blob is"], "kind-of-source-that-is-not-built"),
    ("source", put("from.kind", "ftp"), ["from.kind: found 'ftp'", "'blob'"], "unknown-kind-of-source"),
    ("source", put("kind", "stream"), ["kind: found 'stream'", "'facts' or 'snapshot'"], "unknown-kind-of-table"),
    ("source", put("columns", {}), ["columns: found {}", "at least 1"], "source-without-columns"),
    ("source", put("columns.outcome", {}), ["columns: outcome: the name is used by ingestion itself"], "column-that-ingestion-uses"),
    ("source", put("columns._file", {}), ["columns._file", "pattern"], "column-with-an-underscore"),
    ("source", put("columns", {"amount": {}}), ["at least one must be required"], "no-required-column"),
    ("snapshot", put("daily", {"silver.x": "x"}), ["daily: a snapshot has no facts of a day; leave it out"], "daily-table-of-a-snapshot"),
    ("source", put("daily", {"features.x": "x"}), ["daily: features.x: the tables of a source are in silver"], "daily-table-elsewhere"),
    ("source", put("clean.query", "../secret"), ["clean.query: found '../secret'", "pattern"], "query-leaves-its-folder"),
    ("source", put("timezone", "Mars/Olympus"), ["timezone: found 'Mars/Olympus'", "IANA"], "unknown-time-zone"),
    ("source", put("timezone", "../etc"), ["timezone: found '../etc'", "IANA"], "time-zone-is-a-path"),
    ("source", put("timezone", ""), ["timezone: found ''"], "empty-time-zone"),
    ("source", put("due", "every morning"), ["due: found 'every morning'", "cron"], "due-that-is-no-schedule"),
    ("source", put("source", "../secrets"), ["source: found '../secrets'", "pattern"], "source-leaves-its-folder"),
    # feature tables
    ("features", put("inputs.silver/customer_days.window.back", 90), ["window.back: found 90", "a number of days such as 90d, or all"], "window-without-unit"),
    ("features", put("inputs.silver/customer_days.window.back", "0d"), ["window.back", "greater than or equal to 1"], "window-of-no-days"),
    ("features", put("inputs.silver/customer_days.window.back", "3m"), ["window.back: found '3m'"], "window-of-months"),
    ("features", put("inputs.silver/customer_days.max_age", "7d"), ["window is for facts and max_age for snapshots; an input has one of them"], "facts-and-snapshot-at-once"),
    ("features", put("inputs.silver/customer_days", {"missing": "carry", "wait_until": "3d", "window": {"back": "all"}}), ["wait_until needs missing: wait"], "waits-and-carries"),
    ("features", put("inputs.silver/customer_days.missing", "ignore"), ["missing: found 'ignore'", "'wait' or 'carry'"], "unknown-answer-to-missing"),
    ("features", put("inputs", {"gold.scores": {"missing": "wait"}}), ["inputs: gold.scores: a feature table is made from tables in silver"], "input-from-another-layer"),
    ("features", put("settings.as_of", 1), ["settings: as_of: the day's own parameter has this name"], "setting-called-as-of"),
    ("features", put("rebuild.code", "never"), ["rebuild.code: found 'never'", "'auto' or 'plan'"], "unknown-policy"),
    ("features", put("entity", "Customer"), ["entity: found 'Customer'", "pattern"], "entity-in-capitals"),
    # rules and bands
    ("model", put("gate.rules.0", {"metric": "roc_auc"}), ["gate.rules.0", "'roc_auc'", "at_least or at_most"], "rule-without-bound"),
    ("model", put("gate.rules.0", {"metric": "roc_auc", "at_least": 0.6, "at_most": 0.9}), ["gate.rules.0", "not both"], "rule-with-two-bounds"),
    ("model", put("gate.rules.0.metric", "auc"), ["gate.rules.0.metric: found 'auc'", "'roc_auc'"], "unknown-metric"),
    ("model", put("gate.rules.0.max_loss", -0.1), ["gate.rules.0.max_loss: found -0.1"], "negative-loss"),
    ("model", put("gate.rules.0.at_least", float("nan")), ["gate.rules.0.at_least: found nan"], "bound-is-nan"),
    ("model", put("gate.rules", []), ["gate.rules: found ()", "at least 1"], "gate-without-rules"),
    ("model", put("score.bands", []), ["score.bands: found ()", "at least 1"], "no-bands"),
    ("model", put("score.bands", [{"name": "A", "at_least": 0.5}]), ["score.bands", "end at 0.0", "[0.5]"], "bands-leave-a-gap"),
    ("model", put("score.bands", [{"name": n, "at_least": f} for n, f in [("A", 0.2), ("B", 0.5), ("C", 0.0)]]), ["score.bands", "fall strictly", "[0.2, 0.5, 0.0]"], "bands-do-not-fall"),
    ("model", put("score.bands", [{"name": n, "at_least": f} for n, f in [("A", 0.5), ("B", 0.5), ("C", 0.0)]]), ["score.bands", "fall strictly"], "bands-share-a-floor"),
    ("model", put("score.bands", [{"name": "A", "at_least": 0.5}, {"name": "A", "at_least": 0.0}]), ["score.bands", "'A'"], "bands-share-a-name"),
    # rows that a model learns from
    ("model", drop("features"), ["either features (tables, and their columns) or examples (a table) is needed"], "neither-features-nor-examples"),
    ("model", put("examples", {"table": "silver.x", "columns": ["a"], "split": {"by": "day", "test_share": 0.2}, "restate_days": 1}), ["either features", "or examples"], "features-and-examples"),
    ("model", both(to_examples, put("train.step_days", 30)), ["examples has no use for train.step_days"], "examples-with-cut-offs"),
    ("model", both(to_examples, put("population", {"query": "x"})), ["examples has no use for population"], "examples-with-a-population"),
    ("model", both(to_examples, put("label", {"name": "bad", "query": "x", "inputs": ["silver.x"], "horizon_days": 1})), ["examples has no use for label.query"], "examples-with-a-label-query"),
    ("model", both(to_examples, put("label.horizon_days", 1)), ["without a query the label is a column: leave out"], "examples-with-a-horizon"),
    ("model", both(to_examples, put("examples.split.test_share", 1)), ["examples.split.test_share: found 1", "less than 1"], "all-rows-are-tests"),
    ("model", both(to_examples, put("examples.split.by", "chance")), ["examples.split.by: found 'chance'", "'day' or 'key'"], "unknown-split"),
    ("model", put("label", {"name": "churned"}), ["label.query: feature tables have no label; a query gives it"], "features-without-a-label-query"),
    ("model", drop("label.horizon_days"), ["label", "a label query needs horizon_days"], "label-query-without-a-horizon"),
    ("model", put("label.inputs", []), ["label", "a label query needs inputs"], "label-query-without-inputs"),
    ("model", drop("train.step_days"), ["train.step_days: missing; cut-offs are chosen by them"], "features-without-cut-offs"),
    # columns
    ("model", put("features.products", ["recency_days"]), ["features: recency_days: more than once; the model's columns need unique names"], "column-of-two-tables"),
    ("model", put("features.customers.0", "as_of"), ["features: as_of: the name of another column of the training set"], "column-called-as-of"),
    ("model", put("features.customers.0", "churned"), ["features: churned: the name of another column"], "the-label-as-a-feature"),
    ("model", put("features.customers.0", "customer_id"), ["features: customer_id: the name of another column"], "the-entity-as-a-feature"),
    ("model", put("features.customers.0", "_inputs"), ["features.customers.0: found '_inputs'", "pattern"], "column-with-an-underscore-pinned"),
    ("model", put("evaluate.groups.columns", ["land"]), ["gate.fairness needs ['country'] among evaluate.groups.columns"], "fairness-of-no-group"),
    ("model", both(put("evaluate.groups.columns", ["land"]), put("gate.fairness", [])), ["evaluate.groups.columns: land is not among the model's features: recency_days, "], "group-that-is-no-feature"),
    ("model", put("evaluate.behaviour.1.add", {"recency": 30}), ["evaluate.behaviour stays_away: recency is not among the model's features"], "behaviour-of-no-feature"),
    ("model", put("evaluate.behaviour.1.add", {"recency_days": "mean_amount"}), ["evaluate.behaviour stays_away: mean_amount is not among"], "behaviour-by-no-feature"),
    ("model", put("train.automl.imputation", {"age": "mean"}), ["train.automl.imputation: age is not among the model's features"], "imputation-of-no-feature"),
    ("model", put("gate.max_violations", {"buys_again": 0.1}), ["gate.max_violations and evaluate.behaviour must name the same checks: ['stays_away']"], "behaviour-that-is-not-gated"),
    # schedules, parameters, searches
    ("platform", put("arrivals.sweep", "every minute"), ["arrivals.sweep: found 'every minute'", "cron"], "not-a-schedule"),
    ("model", put("schedule.train", "0 25 * * *"), ["schedule.train: found '0 25 * * *'", "hour is '25'"], "no-such-hour"),
    ("model", put("train.params", {"num_threads": 2}), ["train.params", "n_estimators must be set"], "number-of-trees-missing"),
    ("model", put("train.params.seed", 1), ["train.params", "seed must not be set here"], "seed-among-params"),
    ("model", put("train.sweep.sampling", "bayesian"), ["train.sweep", "bayesian sampling takes choice and uniform only; found others in: learning_rate"], "bayesian-and-loguniform"),
    ("model", both(put("train.method", "sweep"), put("train.sweep", None)), ["method sweep needs the section train.sweep"], "method-without-its-section"),
    ("model", put("approval.environments.local", {"roles": ["x"]}), ["approval.environments.local", "set roles and hours together"], "approval-without-hours"),
    # names
    ("model", put("model", "Churn"), ["model: found 'Churn'", "pattern"], "name-in-capitals"),
    ("model", put("model", "margin"), ["found the name 'margin'; must be the file's name, 'churn'"], "name-is-not-the-file's"),
    ("source", put("source", "sales"), ["found the name 'sales'; must be the file's name, 'transactions'"], "source-is-not-the-file's"),
    ("features", put("table", "clients"), ["found the name 'clients'; must be the file's name, 'customers'"], "table-is-not-the-file's"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "edit", "parts"), [pytest.param(*case[:3], id=case[3]) for case in PARAMS])
def test_a_bad_edit_is_named(refusal: Callable[[str, Edit], str], kind: str, edit: Edit, parts: list[str]) -> None:
    message = refusal(kind, edit)
    for part in parts:
        assert part in message


def test_all_errors_are_reported_at_once(refusal: Callable[[str, Edit], str]) -> None:
    def edit(settings: dict[str, Any]) -> None:
        put("train.min_train_rowz", 3)(settings)
        put("gate.min_rows", "many")(settings)
        put("timezone", "Mars/Olympus")(settings)
        del settings["monitor"]

    message = refusal("model", edit)
    for key in ("train.min_train_rowz", "gate.min_rows", "timezone", "monitor"):
        assert re.search(rf"^  {re.escape(key)}: ", message, re.MULTILINE), f"{key} is missing in:\n{message}"


def test_nothing_else_is_reported(refusal: Callable[[str, Edit], str]) -> None:
    assert len(refusal("model", put("gate.min_rows", 0)).splitlines()) == 2  # the file, and the one key


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
    message = refusal_of(path)
    for part in parts:
        assert part in message


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "churn.yaml"
    path.write_bytes(b"model: \xff\xfe")
    assert "UTF-8" in refusal_of(path)


def test_a_missing_file_lists_those_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "margin.yaml").write_text("")
    assert "no such file; there are: margin" in refusal_of(tmp_path / "churn.yaml")


@pytest.mark.parametrize("name", ["", "Churn", "../churn", "churn.yaml", "churn\n", "c" * 51])
@pytest.mark.parametrize("load", [load_source, load_feature_table, load_model])
def test_an_invalid_name_is_refused(load: Callable[[str], BaseModel], name: str) -> None:
    with pytest.raises(ConfigError, match="lower-case letters, digits and _ only"):
        load(name)


@pytest.mark.parametrize(
    ("kind", "load"), [("source", load_source), ("feature table", load_feature_table), ("model", load_model)]
)
def test_every_shipped_file_loads(kind: str, load: Callable[[str], Any]) -> None:
    names = list_names(kind)
    assert names == sorted(names) != []
    for name in names:
        assert load(name).name == name
        assert load(name) is load(name), "a file is read once"


def test_models_are_loaded_in_the_order_of_their_names() -> None:
    assert [config.model for config in load_models()] == list_names("model")


def test_a_changed_file_is_read_again(resources: Resources) -> None:
    before = load_platform().arrivals.ask_again_minutes
    text = (CONFIG / "platform.yaml").read_text(encoding="utf-8")
    resources.write("config", "platform.yaml", text.replace(f"ask_again_minutes: {before}", "ask_again_minutes: 12345"))
    assert load_platform().arrivals.ask_again_minutes == 12345


def test_nothing_can_be_changed_after_loading() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_model("churn").gate.min_rows = 1


def test_an_unquoted_date_is_refused_where_text_is_needed(refusal: Callable[[str, Edit], str]) -> None:
    """YAML reads 2026-01-01 as a date; strict types refuse it where text is wanted."""
    assert "owner: found" in refusal("model", put("owner", datetime(2026, 1, 1, tzinfo=UTC).date()))


def test_a_model_of_examples_has_neither_population_nor_cut_offs(tmp_path: Path) -> None:
    settings = yaml.safe_load((CONFIG / "models" / "churn.yaml").read_text(encoding="utf-8"))
    to_examples(settings)
    path = tmp_path / "churn.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    model = load_file(path, ModelConfig)
    assert model.examples is not None
    assert model.feature_names == model.examples.columns
    assert model.label.horizon_days is model.train.step_days is None


@pytest.mark.parametrize(("text", "days"), [("90d", 90), ("1d", 1), ("all", None)])
def test_a_window_is_written_in_days_and_written_back_as_it_was(text: str, days: int | None) -> None:
    settings = yaml.safe_load((CONFIG / "features" / "customers.yaml").read_text(encoding="utf-8"))
    settings["inputs"] = {"silver.x": {"window": {"back": text}, "missing": "wait"}}
    table = FeatureTableConfig.model_validate(settings)
    window = table.inputs["silver.x"].window
    assert window is not None
    assert window.back == days
    assert table.model_dump(mode="json")["inputs"]["silver.x"]["window"] == {"back": text}


@pytest.mark.parametrize(
    ("name", "family"), [("customers", "customers"), ("customers_v2", "customers"), ("v2", "v2"), ("a_v2_b", "a_v2_b")]
)
def test_versions_of_a_table_are_a_family(name: str, family: str) -> None:
    assert load_feature_table("customers").model_copy(update={"table": name}).family == family


# Keys without a reason: their values are names and places.
_NAMES = {
    "algorithm", "compute", "description", "entity", "environment", "experiment", "model", "name", "owner", "query", "seed",
    "source", "table", "time",
}  # fmt: skip


@pytest.mark.parametrize("path", sorted(CONFIG.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIG)))
def test_every_threshold_has_its_reason(path: Path) -> None:
    """A number, a schedule or a choice has a comment on its line or on the one above."""
    lines = path.read_text(encoding="utf-8").splitlines()
    bare = []
    for above, line in zip(["", *lines], lines, strict=False):
        setting = re.match(r"\s*(?:- )?(\w+): *([^#\s].*)", line)
        if (
            not setting
            or setting[1] in {*_NAMES, *list_names("feature table")}
            or re.fullmatch(r"\{(required: true)?\}.*", setting[2])
        ):
            continue
        if "#" not in line and not above.strip().startswith("#"):
            bare.append(line.strip())
    assert not bare, f"say why in {path.name}: {bare}"
