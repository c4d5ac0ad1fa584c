"""Config files against each other: everything that contradicts is one sentence with file, key and remedy, all at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ml.config import ConfigError, load_project
from ml.config.project import find_problems, one_of, read_project
from ml.resources import resource_dir
from tests.support.config_folder import ConfigFolder

Change = Callable[[ConfigFolder], None]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigFolder:
    """Sources `sales` and `visits`, a snapshot `ref`, feature tables on the first two, and a model on each."""
    folder = ConfigFolder(tmp_path)
    monkeypatch.setenv("ML_RESOURCES", str(tmp_path))
    folder.source("sales")
    folder.source("visits")
    folder.source("ref", kind="snapshot")
    folder.table("buyers", "sales")
    folder.table("guests", "visits", carried=("ref",))
    folder.model("leaving", "buyers", label="sales")
    folder.model("lapse", "guests", label="visits")
    return folder


def problems() -> list[str]:
    return [str(problem) for problem in find_problems(read_project())]


def test_files_that_fit_have_no_problem(config: ConfigFolder) -> None:
    assert problems() == []
    assert set(load_project().models) == {"leaving", "lapse"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # tables
        pytest.param(
            lambda c: c.model("lapse", "guests", label="visits", score={"table": "gold.leaving_scores"}),
            "config/models/lapse.yaml: score.table: gold.leaving_scores is also written by config/models/leaving.yaml "
            "(score.table); give each of them a table of its own",
            id="two-models-write-one-table",
        ),
        pytest.param(
            lambda c: c.model("lapse", "guests", label="visits", train={"table": "features.buyers"}),
            "config/features/buyers.yaml: table: features.buyers is also written by config/models/lapse.yaml (train.table); "
            "give each of them a table of its own",
            id="a-training-set-over-a-feature-table",
        ),
        pytest.param(
            lambda c: c.source("visits", daily={"silver.sales": "sources/customer_days"}),
            "config/sources/sales.yaml: source: silver.sales is also written by config/sources/visits.yaml "
            "(daily.silver.sales); give each of them a table of its own",
            id="a-daily-table-over-a-source",
        ),
        pytest.param(
            lambda c: c.model("lapse", "guests", label="visits", monitor={"table": "ops.drift"}),
            "config/models/lapse.yaml: monitor.table: a model writes no table in ops; use features for training sets and "
            "gold for the others",
            id="a-model-that-writes-the-system's-tables",
        ),
        pytest.param(
            lambda c: c.model("lapse", "guests", label="visits", score={"table": "silver.scores"}),
            "config/models/lapse.yaml: score.table: a model writes no table in silver; use features for training sets and "
            "gold for the others",
            id="a-model-that-writes-silver",
        ),
        # names
        pytest.param(
            lambda c: c.model("buyers", "buyers", label="sales"),
            "config/models/buyers.yaml: model: buyers is also a feature table, and both would have the asset buyers.ready; "
            "rename one of them",
            id="a-model-called-as-a-table",
        ),
        pytest.param(
            lambda c: c.model("silver", "buyers", label="sales"),
            "config/models/silver.yaml: model: silver is the name of a layer of the lake; choose another name",
            id="a-model-called-as-a-layer",
        ),
        # inputs of feature tables
        pytest.param(
            lambda c: c.table("more", "sale"),
            "config/features/more.yaml: inputs.silver.sale: no source writes this table; did you mean silver.sales?",
            id="an-input-that-is-misspelt",
        ),
        pytest.param(
            lambda c: c.table("more", "weather"),
            "config/features/more.yaml: inputs.silver.weather: no source writes this table; there are: silver.ref, "
            "silver.sales, silver.visits",
            id="an-input-that-no-source-writes",
        ),
        pytest.param(
            lambda c: c.table("more", inputs={"silver.sales": {"missing": "wait"}}),
            "config/features/more.yaml: inputs.silver.sales: facts need a window, such as {back: all} or {back: 90d}; add it",
            id="facts-without-a-window",
        ),
        pytest.param(
            lambda c: c.table("more", "visits", inputs={"silver.ref": {"missing": "wait", "window": {"back": "7d"}}}),
            "config/features/more.yaml: inputs.silver.ref.window: a snapshot is joined as known on the day; remove the "
            "window, max_age limits how old it may be",
            id="a-snapshot-with-a-window",
        ),
        pytest.param(
            lambda c: c.table("more", "ref"),
            "config/features/more.yaml: inputs: all are snapshots; add a table of facts, which says what days there are",
            id="snapshots-alone",
        ),
        pytest.param(
            lambda c: (c.source("far", timezone="Asia/Tokyo"), c.table("more", "sales", "far"))[0],
            "config/features/more.yaml: inputs: facts of different time zones: silver.far (Asia/Tokyo), silver.sales (UTC); "
            "their days are not the same days, so use one time zone",
            id="facts-of-two-time-zones",
        ),
        # what models read
        pytest.param(
            lambda c: c.model("lapse", "guest", label="visits"),
            "config/models/lapse.yaml: features.guest: no such feature table; did you mean guests?",
            id="a-feature-table-that-is-misspelt",
        ),
        pytest.param(
            lambda c: c.model("lapse", "guests", label="visits", entity="household_id"),
            "config/models/lapse.yaml: features.guests: its rows are by customer_id, the model's are by household_id; use a "
            "table by household_id",
            id="a-feature-table-of-another-entity",
        ),
        pytest.param(
            lambda c: c.model("lapse", "guests", label="visit"),
            "config/models/lapse.yaml: label.inputs: no source writes silver.visit; did you mean silver.visits?",
            id="a-label-of-a-table-that-is-misspelt",
        ),
        pytest.param(
            lambda c: c.model("lapse", "guests", label="ref"),
            "config/models/lapse.yaml: label.inputs: silver.ref is a snapshot; a label looks at dated facts, so use a table "
            "of facts",
            id="a-label-of-a-snapshot",
        ),
        pytest.param(
            lambda c: (c.source("population"), c.model("lapse", "guests", label="population"))[0],
            "config/models/lapse.yaml: label.inputs: silver.population is called population in the query, as another input "
            "is; rename the table",
            id="a-label-of-a-table-called-population",
        ),
        pytest.param(
            lambda c: (c.source("far", timezone="Asia/Tokyo"), c.model("lapse", "guests", label="far"))[0],
            "config/models/lapse.yaml: features: its feature tables and label are from facts of different time zones: "
            "silver.visits (UTC), silver.far (Asia/Tokyo); use one time zone",
            id="features-and-label-of-two-time-zones",
        ),
        pytest.param(
            lambda c: c.examples_model("loans", "loan"),
            "config/models/loans.yaml: examples.table: no source writes silver.loan; there are: silver.ref, silver.sales, "
            "silver.visits",
            id="examples-that-no-source-writes",
        ),
        pytest.param(
            lambda c: c.examples_model("loans", "ref"),
            "config/models/loans.yaml: examples.table: silver.ref is a snapshot, which repeats its rows each time; examples "
            "are rows of facts",
            id="examples-of-a-snapshot",
        ),
        pytest.param(
            lambda c: c.model("lapse", "guests", label="visits", report={"connection": "powerbi_leaving"}),
            "config/models/lapse.yaml: report.connection: powerbi_leaving is also that of leaving; each model refreshes a "
            "dataset of its own",
            id="two-models-refresh-one-dataset",
        ),
    ],
)  # fmt: skip
def test_a_contradiction_is_one_sentence(config: ConfigFolder, change: Change, expected: str) -> None:
    change(config)
    assert problems() == [expected]
    with pytest.raises(ConfigError, match="config files contradict each other") as caught:
        load_project()
    assert expected in str(caught.value)


def test_all_contradictions_are_reported_at_once(config: ConfigFolder) -> None:
    config.table("more", "weather")
    config.table("less", "ref")
    config.model("lapse", "guest", label="visit")
    assert len(problems()) == 4


def test_each_problem_names_the_files_that_it_is_about(config: ConfigFolder) -> None:
    config.model("lapse", "guests", label="visits", score={"table": "gold.leaving_scores"})
    (problem,) = find_problems(read_project())
    assert {problem.file, *problem.others} == {"config/models/lapse.yaml", "config/models/leaving.yaml"}


class TestAllowed:
    """What looks like a contradiction and is none."""

    def test_a_source_and_a_feature_table_of_the_same_name(self, config: ConfigFolder) -> None:
        config.table("sales", "sales")
        assert problems() == []

    def test_two_models_on_one_source_feature_table_and_label(self, config: ConfigFolder) -> None:
        config.model("early", "buyers", label="sales")
        assert problems() == []

    def test_a_snapshot_of_another_time_zone(self, config: ConfigFolder) -> None:
        config.source("ref", kind="snapshot", timezone="Asia/Tokyo")
        assert problems() == []

    def test_a_model_without_a_report(self, config: ConfigFolder) -> None:
        config.model("lapse", "guests", label="visits", report=None)
        config.model("leaving", "buyers", label="sales", report=None)
        assert problems() == []

    def test_no_models_and_no_tables(self, config: ConfigFolder) -> None:
        for name in ("models/leaving", "models/lapse", "features/buyers", "features/guests"):
            config.remove(f"{name}.yaml")
        assert problems() == []


def test_the_source_of_a_table_is_found_and_an_unknown_one_lists_them(config: ConfigFolder) -> None:
    config.source("sales", daily={"silver.sales_days": "sources/customer_days"})
    project = load_project()
    assert project.source_of("silver.sales_days").source == "sales"
    with pytest.raises(
        ConfigError, match=r"silver.sale: no source writes this table; .*silver.sales, silver.sales_days"
    ):
        project.source_of("silver.sale")


def test_the_facts_of_a_model_are_those_of_its_features_and_its_label(config: ConfigFolder) -> None:
    config.model("lapse", "guests", label="sales")
    project = load_project()
    assert project.fact_tables_of(project.models["lapse"]) == ("silver.visits", "silver.sales")


def test_a_suggestion_is_made_only_where_something_is_close() -> None:
    assert one_of("custmers", ["customers", "products"]) == "did you mean customers?"
    assert one_of("weather", ["customers", "products"]) == "there are: customers, products"
    assert one_of("weather", []) == "there are: none"


def test_the_shipped_files_fit() -> None:
    assert resource_dir("config").is_dir()
    assert problems() == []
