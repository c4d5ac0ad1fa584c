"""What files say of each other, and of queries: every contradiction is one sentence with file, key and remedy."""

from __future__ import annotations

from typing import Any

import pytest

SOURCE = "config/sources/visits.yaml"
FEATURES = "config/features/members.yaml"
MODEL = "config/models/lapse.yaml"
CLEAN_SQL = "include/sql/sources/visits.sql"
FEATURES_SQL = "include/sql/features/members.sql"
POPULATION_SQL = "include/sql/populations/lapse.sql"
LABEL_SQL = "include/sql/labels/lapse.sql"


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        # queries that are not there
        pytest.param(
            FEATURES, "query: features/members", "query: features/member",
            f"{FEATURES}: query: there is no include/sql/features/member.sql; did you mean features/members?",
            id="misspelt-query",
        ),
        pytest.param(
            MODEL, "query: labels/lapse", "query: other",
            f"{MODEL}: label.query: there is no include/sql/other.sql; there are: features/members, labels/lapse, ",
            id="missing-query",
        ),
        # tables
        pytest.param(
            FEATURES_SQL, "FROM visits", "FROM visit",
            f"{FEATURES_SQL}: it reads visit, which {FEATURES} does not give it; did you mean visits?",
            id="table-that-is-no-input",
        ),
        pytest.param(
            LABEL_SQL, "FROM population\nLEFT", "FROM members AS population\nLEFT",
            f"{LABEL_SQL}: it reads members, which {MODEL} does not give it; there are: population, visits",
            id="label-that-reads-features",
        ),
        pytest.param(
            LABEL_SQL, "INNER JOIN visits", "INNER JOIN (SELECT 'x' AS entity_id, DATE '2024-01-01' AS day) AS visits",
            f"{MODEL}: label.inputs: {LABEL_SQL} does not read visits; remove it here, or read it there",
            id="input-that-is-not-read",
        ),
        # parameters
        pytest.param(
            FEATURES, "recent_days: 30", "recent: 30",
            f"{FEATURES_SQL}: :recent_days has no value; add it to settings in {FEATURES}; it gets :as_of, :recent",
            id="setting-missing",
        ),
        pytest.param(
            FEATURES, "recent_days: 30", "recent_days: 30\n  old_days: 90",
            f"{FEATURES}: settings.old_days: {FEATURES_SQL} has no :old_days; remove the setting, or use it in the query",
            id="setting-unused",
        ),
        pytest.param(
            SOURCE, "max_abs_amount: 1000000", "max_abs_amount: 1000000\n    timezone: UTC",
            f"{SOURCE}: clean.settings.timezone: the caller itself gives :timezone; remove the setting",
            id="setting-that-the-caller-gives",
        ),
        pytest.param(
            MODEL, "settings: {}\n\nlabel", "settings: {least: 1}\n\nlabel",
            f"{MODEL}: population.settings.least: {POPULATION_SQL} has no :least",
            id="population-setting-unused",
        ),
        pytest.param(
            LABEL_SQL, "<= :horizon_days", "<= :horizon",
            f"{LABEL_SQL}: :horizon has no value; add it to label.settings in {MODEL}",
            id="label-parameter-misspelt",
        ),
        # the contract of a source
        pytest.param(
            SOURCE, "  category: {}\n", "",
            f"{CLEAN_SQL}: there is no column category in what it reads; it reads bronze (_id, _day, _file, _row, entity_id,",
            id="column-read-but-not-declared",
        ),
        pytest.param(
            SOURCE, "  category: {}\n", "  categorie: {}\n",
            f"{CLEAN_SQL}: there is no column category in what it reads; did you mean categorie?",
            id="column-misspelt",
        ),
        pytest.param(
            CLEAN_SQL, "  remedy,\n  _day", "  _day",
            f"{CLEAN_SQL}: it gives no column remedy; ingestion needs _id, outcome, refused_column, reason, remedy, day,",
            id="result-column-missing",
        ),
        pytest.param(
            CLEAN_SQL, "_day AS day", "CAST(_day AS STRING) AS day",
            f"{CLEAN_SQL}: it gives day as string; cast it to date32[day]",
            id="result-column-of-another-type",
        ),
        pytest.param(
            SOURCE, "time: happened_at", "time: at",
            f"{SOURCE}: time: {CLEAN_SQL} gives no column at; it gives day, entity_id, happened_at, category, amount,",
            id="time-that-is-no-column",
        ),
        pytest.param(
            SOURCE, "time: happened_at", "time: category",
            f"{SOURCE}: time: {CLEAN_SQL} gives category as string; cast it to a timestamp",
            id="time-that-is-none",
        ),
        pytest.param(
            CLEAN_SQL, "ELSE 'quarantined'", "ELSE 'refused'",
            f"{CLEAN_SQL}: it gives the outcomes ['refused']; allowed are silver, quarantined, duplicate",
            id="outcome-misspelt",
        ),
        pytest.param(
            CLEAN_SQL, "FROM summed\n", "FROM summed\nWHERE copy = 1\n",
            f"{CLEAN_SQL}: it gives ",
            id="rows-lost",
        ),
        pytest.param(
            CLEAN_SQL, "THEN try_cast(amount AS DOUBLE)", "THEN CAST(category AS DOUBLE)",
            f"{CLEAN_SQL}: it cannot run: DuckDB: ",
            id="cast-that-fails",
        ),
        pytest.param(
            CLEAN_SQL, "  reason,\n", "  CAST(NULL AS STRING) AS reason,\n",
            "refused rows have no reason; every refusal says which column, why, and what to do",
            id="refusal-without-a-reason",
        ),
        # keys
        pytest.param(
            FEATURES_SQL, "CAST(:as_of AS DATE) AS as_of,", "",
            f"{FEATURES_SQL}: it gives no column as_of, which is part of the table's key; add it",
            id="no-as-of",
        ),
        pytest.param(
            FEATURES_SQL, "CAST(:as_of AS DATE) AS as_of,", "max(day) AS as_of,",
            f"{FEATURES_SQL}: it gives rows as of another day; write CAST(:as_of AS DATE) AS as_of",
            id="as-of-another-day",
        ),
        pytest.param(
            FEATURES_SQL, "GROUP BY entity_id\nORDER BY entity_id", "GROUP BY entity_id, day\nORDER BY entity_id, day",
            "rows too many, such as for entity_id ",
            id="several-rows-per-key",
        ),
        pytest.param(
            FEATURES_SQL, "SELECT\n  entity_id,", "SELECT\n  entity_id AS id,",
            f"{FEATURES_SQL}: it gives no column entity_id, which is part of the table's key; add it",
            id="no-entity",
        ),
        pytest.param(
            POPULATION_SQL, "  as_of\nFROM", "  as_of AS day\nFROM",
            f"{POPULATION_SQL}: it gives no column as_of; it gives entity_id, day: add it",
            id="population-without-as-of",
        ),
        pytest.param(
            POPULATION_SQL, "SELECT\n  entity_id,", "SELECT\n  concat(entity_id, 'x') AS entity_id,",
            "keys that members does not have, such as ",
            id="population-of-others",
        ),
        pytest.param(
            LABEL_SQL, "AS inactive", "AS active",
            f"{LABEL_SQL}: it gives no column inactive; it gives entity_id, as_of, active: add it",
            id="no-label",
        ),
        pytest.param(
            LABEL_SQL, "THEN 1 ELSE 0 END", "THEN 2 ELSE 0 END",
            f"{LABEL_SQL}: it gives inactive as 2; a label is 0 or 1, or NULL while not known",
            id="label-of-two",
        ),
        pytest.param(
            LABEL_SQL, "\nLEFT JOIN came", "\nINNER JOIN came",
            "such as not for ",
            id="label-for-some-only",
        ),
        pytest.param(
            LABEL_SQL, "SELECT DISTINCT", "SELECT",
            "rows more than keys (entity_id, as_of); each key needs one row",
            id="label-more-than-once",
        ),
        # columns of models
        pytest.param(
            MODEL, "[since_last, ", "[since_lost, ",
            f"{MODEL}: features.members: members has no column since_lost; did you mean since_last?",
            id="pinned-column-misspelt",
        ),
        pytest.param(
            FEATURES_SQL, "count(*) AS total,", "max(day) AS total,",
            f"{MODEL}: features.members: total of members is date32[day]; a model takes numbers, bools and texts",
            id="pinned-column-is-a-date",
        ),
        pytest.param(
            FEATURES_SQL, "count(*) AS total,", "max(category) AS total,",
            f"{MODEL}: evaluate.behaviour comes: total is changed by a number, but it is string; name a column of numbers",
            id="behaviour-of-a-text",
        ),
    ],
)  # fmt: skip
def test_a_contradiction_is_one_sentence(project: Any, file: str, old: str, new: str, sentence: str) -> None:
    if "behaviour" in sentence:
        change = "behaviour: [{name: comes, add: {total: 1}, expect: not_higher, tolerance: 0.1}]"
        project.change(MODEL, "behaviour: []", change)
        project.change(MODEL, "max_violations: {}", "max_violations: {comes: 0.1}")
    project.change(file, old, new)
    problems = project.problems()
    assert any(sentence in problem for problem in problems), problems
    assert len(problems) <= 2, problems  # a second one may follow from it, as an unused setting does


def test_all_problems_are_reported_at_once(project: Any) -> None:
    project.change(FEATURES, "recent_days: 30", "recent_days: 30\n  old_days: 90")
    project.change(LABEL_SQL, "<= :horizon_days", "<= :horizon_days + 400")
    project.change(MODEL, "[since_last, ", "[since_lost, ")
    project.change(CLEAN_SQL, "ELSE 'quarantined'", "ELSE 'refused'")
    project.write("config/sources/other.yaml", "source: other\nkindd: facts\n")
    problems = "\n".join(project.problems())
    for part in ("old_days", "'refused'", "config/sources/other.yaml: kindd: unknown key", "columns: missing"):
        assert part in problems
    # what is built on rows that cannot be made is not checked before these can
    project.change(CLEAN_SQL, "ELSE 'refused'", "ELSE 'quarantined'")
    problems = "\n".join(project.problems())
    for part in ("old_days", "it looks further than horizon_days", "since_lost"):
        assert part in problems


def test_a_bad_file_does_not_make_those_built_on_it_look_bad(project: Any) -> None:
    project.change(SOURCE, "kind: facts", "kind: fact")
    problems = project.problems()
    assert problems
    assert all(problem.startswith(f"{SOURCE}: kind: found 'fact'") for problem in problems)


def test_nothing_to_check_is_no_problem(project: Any) -> None:
    for folder in ("config/sources", "config/features", "config/models", "include/expectations/visits"):
        for path in project.path(folder).iterdir():
            path.unlink()
        project.path(folder).rmdir()
    assert project.problems() == []


def test_a_source_whose_rows_cannot_be_guessed_is_checked_with_typed_rows(project: Any) -> None:
    project.change(
        CLEAN_SQL, "WHEN entity_id IS NULL THEN", "WHEN sha2(coalesce(entity_id, ''), 256) NOT LIKE 'ffff%' THEN"
    )
    checked = project.check()
    assert [note for note in checked.notes if "it accepts no generated row" in note]
    assert not [problem for problem in checked.problems if "entity_id" not in str(problem)]


class TestGivenFiles:
    """Files that are given limit what is reported to what concerns them."""

    @pytest.fixture
    def wrong(self, project: Any) -> Any:
        project.change(FEATURES, "recent_days: 30", "recent_days: 30\n  old_days: 90")
        project.change(LABEL_SQL, "<= :horizon_days", "<= :horizon_days + 400")
        return project

    def test_a_file_of_the_model_shows_what_is_wrong_with_the_label(self, wrong: Any) -> None:
        for file in (MODEL, LABEL_SQL):
            assert any(LABEL_SQL in problem for problem in wrong.problems(file))

    def test_a_file_of_another_query_does_not(self, wrong: Any) -> None:
        assert not wrong.problems("include/expectations/visits/arrival.yaml")

    def test_the_table_itself_is_named_with_its_own_problem(self, wrong: Any) -> None:
        assert any("old_days" in problem for problem in wrong.problems(FEATURES_SQL))

    @pytest.mark.parametrize("name", ["config/models/nosuch.yaml", "../README.md"])
    def test_a_file_that_is_none_of_them_is_refused(self, wrong: Any, name: str) -> None:
        from ml.errors import StageError

        wrong.write("../README.md", "")
        with pytest.raises(StageError, match=r"no such file|not a file of config, SQL or expectations"):
            wrong.problems(name)
