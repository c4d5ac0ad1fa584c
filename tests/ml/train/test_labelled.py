"""Labels of a labelling export: which are used, which are refused and why, and their effect on the training set."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from ml.config import ModelConfig, load_model
from ml.config.sections import LabelExport
from ml.errors import StageError
from ml.train import human_labels
from ml.train.labels import apply_human_labels

DAY = date(2024, 3, 30)
ITEM = r"(?P<key>[^/]+)/(?P<as_of>\d{4}-\d{2}-\d{2})\.txt$"
EXPORT: dict[str, Any] = {
    "folder": "labels/churn",
    "item": ITEM,
    "positive": ("leaving",),
    "negative": ("staying", "neutral"),
    "min_confidence": 0.9,
    "only": False,
}


def model(**changed: Any) -> ModelConfig:
    churn = load_model("churn")
    export = LabelExport(**EXPORT | changed)
    return churn.model_copy(update={"label": churn.label.model_copy(update={"export": export})})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAKE_URI", tmp_path.as_uri())
    exports = tmp_path / "labels/churn"
    exports.mkdir(parents=True)
    return exports


def line(who: str, label: Any = "leaving", **other: Any) -> str:
    return json.dumps({"text_url": f"AmlDatastore://data/items/{who}/{DAY}.txt", "label": label} | other)


def read(folder: Path, *lines: str, **changed: Any) -> human_labels.ExportedLabels:
    (folder / "export_1.jsonl").write_text("\n".join(lines))
    return human_labels.read_export(model(**changed))


def test_json_lines_name_the_item_by_its_address(folder: Path) -> None:
    export = read(folder, line("c1"), line("c2", "neutral"), "", line("c3", "staying", label_confidence=1.0))
    assert export.labels == {("c1", DAY): 1, ("c2", DAY): 0, ("c3", DAY): 0}
    assert (export.unsure, export.skipped, export.refused) == (0, 0, ())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Url,Label,LabelConfidence\nitems/c1/2024-03-30.txt,leaving,1\n", id="by-address"),
        pytest.param("\ufeffcustomer_id,as_of,note,Label\nc1,2024-03-30,\"two\nlines\",leaving\n", id="by-columns"),
    ],
)  # fmt: skip
def test_a_csv_is_read_with_column_names_in_any_case(folder: Path, text: str) -> None:
    (folder / "export.csv").write_text(text)
    assert human_labels.read_export(model()).labels == {("c1", DAY): 1}


def test_the_newest_export_counts(folder: Path) -> None:
    (folder / "2024-04-01.jsonl").write_text("\n".join([line("c1", "leaving"), line("c2", "leaving")]))
    (folder / "2024-04-02.jsonl").write_text(line("c1", "staying"))
    assert human_labels.read_export(model()).labels == {("c1", DAY): 0, ("c2", DAY): 1}


def test_unsure_and_skipped_labels_do_not_count(folder: Path) -> None:
    export = read(folder, line("c1", label_confidence=0.89), line("c2", "Skipped"), line("c3", None), line("c4"))
    assert (list(export.labels), export.unsure, export.skipped) == ([("c4", DAY)], 1, 2)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        pytest.param("{", "line 2: not JSON", id="broken-line"),
        pytest.param("[1]", "line 2: found list; an object is needed", id="no-object"),
        pytest.param('{"text_url": "x"}', "no field 'label'; there are: text_url", id="no-label"),
        pytest.param(line("c", "perhaps"), "'perhaps' is neither in label.export.positive", id="unknown-class"),
        pytest.param(line("c", ["leaving", "staying"]), "one class per item is needed", id="several-classes"),
        pytest.param('{"label": "leaving"}', "neither customer_id and as_of nor an address", id="no-address"),
        pytest.param('{"label": "leaving", "url": "a.txt"}', "does not match label.export.item", id="other-address"),
        pytest.param(line("c", label_confidence="high"), "label_confidence is 'high': a number", id="confidence"),
        pytest.param(
            '{"label": "leaving", "customer_id": "c", "as_of": "soon"}', "as_of is 'soon': YYYY-MM-DD", id="as-of"
        ),
    ],
)
def test_an_unusable_line_is_reported_and_the_others_are_used(folder: Path, bad: str, why: str) -> None:
    export = read(folder, line("c1"), bad)
    assert export.labels == {("c1", DAY): 1}
    (refusal,) = export.refused
    assert "labels/churn/export_1.jsonl line 2" in refusal
    assert why in refusal


def test_a_file_in_another_encoding_is_reported(folder: Path) -> None:
    (folder / "old.csv").write_bytes("Url,Label\nä,leaving".encode("utf-16"))
    export = read(folder, line("c1"))
    assert [sentence.split(" (")[0] for sentence in export.refused] == ["labels/churn/old.csv: not UTF-8"]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        pytest.param([], "no export in labels/churn/", id="no-file"),
        pytest.param(["{"], "no usable label: 1 refused.*line 1: not JSON", id="nothing-usable"),
    ],
)
def test_an_export_without_a_usable_label_is_refused(folder: Path, lines: list[str], why: str) -> None:
    if lines:
        (folder / "export_1.jsonl").write_text("\n".join(lines))
    with pytest.raises(StageError, match=why):
        human_labels.read_export(model())


def test_the_digest_changes_with_what_was_read(folder: Path) -> None:
    assert read(folder, line("c1")).digest != read(folder, line("c1", "staying")).digest


ROWS = pa.table(
    {"customer_id": ["c1", "c2", "c3"], "as_of": [DAY] * 3, "churned": [0, 0, 1], "amount": [1.0, 2.0, 3.0]}
)


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        pytest.param(False, {"c1": 1, "c2": 0, "c3": 0}, id="other-rows-have-the-label-of-the-query"),
        pytest.param(True, {"c1": 1, "c3": 0}, id="other-rows-are-left-out"),
    ],
)
def test_labels_of_people_replace_those_of_the_query(folder: Path, only: bool, expected: dict[str, int]) -> None:
    lines = [line("c1"), line("c3", "staying"), line("c9"), line("c2", label_confidence=0.5), "{"]
    (folder / "export_1.jsonl").write_text("\n".join(lines))
    labelled = apply_human_labels(model(only=only), ROWS)
    keys, labels = (labelled.rows[name].to_pylist() for name in ("customer_id", "churned"))
    assert dict(zip(keys, labels, strict=True)) == expected
    facts = labelled.facts["labels_of_people"]
    assert {name: facts[name] for name in ("used", "elsewhere", "unsure", "refused")} == {
        "used": 2,
        "elsewhere": 1,
        "unsure": 1,
        "refused": 1,
    }


def test_an_export_without_labels_of_these_rows_is_refused(folder: Path) -> None:
    (folder / "export_1.jsonl").write_text(line("c9"))
    with pytest.raises(StageError, match="none of the 1 labels in labels/churn/ is of a customer_id and cut-off"):
        apply_human_labels(model(), ROWS)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        pytest.param({"item": "("}, "is not a regular expression", id="not-an-expression"),
        pytest.param({"item": "(?P<key>.*)"}, "must have the groups", id="no-as-of"),
        pytest.param({"negative": ("leaving",)}, "both positive and negative: ['leaving']", id="both"),
        pytest.param({"folder": "../elsewhere"}, "folder", id="outside"),
    ],
)
def test_an_invalid_setting_is_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(why)):
        LabelExport(**EXPORT | changed)
