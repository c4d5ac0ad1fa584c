"""Suites of expectations: their types, the columns that they name, and the config keys that they look up."""

from __future__ import annotations

from typing import Any

import pytest

ARRIVAL = "include/expectations/visits/arrival.yaml"
SILVER = "include/expectations/visits/silver.yaml"
TRAINING = "include/expectations/training.yaml"


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        pytest.param(
            SILVER, "column: amount,", "column: amuont,",
            f"{SILVER}: 'Amounts are within bounds': rows of visits has no column amuont; did you mean amount?",
            id="misspelt-column",
        ),
        pytest.param(
            ARRIVAL, "column: amount,", "column: kind,",
            f"{ARRIVAL}: 'Amounts are numbers': rows of visits has no column kind; there are: _day, _file, _row, amount,",
            id="column-that-the-files-do-not-have",
        ),
        pytest.param(
            SILVER, "-$clean.settings.max_abs_amount", "-$clean.max_abs_amount",
            f"{SILVER}: 'Amounts are within bounds': no such key as clean.max_abs_amount in config/sources/visits.yaml; "
            "correct the key, or set meta.needs",
            id="misspelt-key",
        ),
        pytest.param(
            SILVER, "expect_column_values_to_not_be_null", "expect_column_values_to_be_nul",
            "there is no expectation expect_column_values_to_be_nul; did you mean expect_column_values_to_be_null?",
            id="misspelt-expectation",
        ),
        pytest.param(
            SILVER, "meta: {why: \"one absurd", "meta: {of: row, why: \"one absurd",
            f"{SILVER}: 'Amounts are within bounds': meta.of is row; did you mean rows?",
            id="misspelt-frame",
        ),
        pytest.param(
            TRAINING, "$label.name", "$label.title", "no such key as label.title in config/models/lapse.yaml",
            id="misspelt-key-of-all-models",
        ),
        pytest.param(
            SILVER, "severity: critical", "severity: deadly", f"{SILVER}: expectations.0.severity: Input should be",
            id="unknown-severity",
        ),
        pytest.param(SILVER, "expectations:", "expectation:", f"{SILVER}: expectations: Field required", id="misspelt-section"),
        pytest.param(SILVER, "kwargs: {column", "kwargs: {column: a, {column", f"{SILVER}: not YAML", id="not-yaml"),
    ],
)  # fmt: skip
def test_a_suite_that_cannot_be_checked_is_one_sentence(
    project: Any, file: str, old: str, new: str, sentence: str
) -> None:
    project.change(file, old, new)
    problems = project.problems(file)
    assert any(sentence in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("visit/silver.yaml", "there is no source or model visit, so nothing reads this file; did you mean visits?"),
        ("visits/sliver.yaml", "there is no suite sliver, so nothing reads this file; did you mean silver?"),
        ("lapse/silver.yaml", "nothing reads this file: a model has training; rename it"),
        ("visits/training.yaml", "nothing reads this file: a source has arrival and silver; rename it"),
    ],
)
def test_a_file_that_nothing_reads_is_named(project: Any, file: str, sentence: str) -> None:
    project.write(f"include/expectations/{file}", "expectations: []\n")
    problems = project.problems(f"include/expectations/{file}")
    assert f"include/expectations/{file}: {sentence}" in problems
