"""`python -m ml reenter`: each corrected row replaces the refused row that it corrects, and adds no row."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml.config import load_source
from ml.errors import StageError
from ml.landing import listing
from ml.stages import reenter
from ml.storage import stores
from tests.support.data.bronze_days import DAY, Days, mark, row, rows_of
from tests.support.data.deliveries import CLEAN, parcel, put_deliveries
from tests.support.resources import Resources

SOURCE = load_source("transactions")
FILE = f"transactions/{DAY}/{listing.CORRECTIONS}"


@pytest.fixture
def days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Days:
    """A day with one good row, two that are refused, and one that could not be parsed."""
    days = Days(tmp_path, monkeypatch)
    path = days.arrive("x.csv", [row(1), row(2, amount="15,30"), row(3, customer_id=None, quantity="six")])
    days.skip(path, 5, "536369;17850")
    days.ingest(copy_log="bronze/_log/k")
    return days


def call(*arguments: Any, source: str = "transactions") -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    parser.set_defaults(source=source)
    reenter.add_arguments(parser)
    return reenter.run(parser.parse_args(["--days", str(DAY), *map(str, arguments)]))


@pytest.fixture
def correct(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Export the refused rows, keep those for which `change` returns cells, and take them back."""

    def run(change: Callable[[dict[str, str]], dict[str, str] | None]) -> dict[str, Any]:
        path = tmp_path / "refused.csv"
        call("--export", path)
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line | changed for line in csv.DictReader(file) if (changed := change(line)) is not None]
        with path.open("w", newline="", encoding="utf-8-sig") as file:  # as a spreadsheet writes it
            writer = csv.DictWriter(file, [*reenter.REFUSAL_COLUMNS, *SOURCE.columns])
            writer.writeheader()
            writer.writerows(lines)
        return call("--corrections", path)

    return run


def amount(line: dict[str, str]) -> dict[str, str] | None:
    return {"amount": "15.30"} if line["amount"] == "15,30" else None


def account(days: Days) -> tuple[int, ...]:
    days.ingest(copy_log="bronze/_log/k")
    found = mark()
    assert found is not None
    return tuple(found[name] for name in ("received", "silver", "quarantined", "duplicates"))


def test_the_export_has_each_refused_row_with_reason_remedy_and_cells(days: Days, tmp_path: Path) -> None:
    assert call("--export", tmp_path / "out.csv")["rows"] == 3
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        unparsed, comma, both = csv.DictReader(file)
    assert comma["_file"].endswith("x.csv")
    assert (comma["_row"], comma["amount"], comma["_reason"]) == ("2", "15,30", "amount has a decimal comma")
    assert both["_reason"] == "customer_id is missing; quantity is not a number"
    assert json.loads(unparsed["_received"]) == {"line": "536369;17850"}


def test_a_corrected_row_replaces_the_refused_one(days: Days, correct: Callable[..., dict[str, Any]]) -> None:
    before = listing.list_landing("transactions").days[0].fingerprint
    facts = correct(amount)
    assert facts == {"day": str(DAY), "rows": 1, "corrected": 1, "file": FILE, "written": True}
    assert listing.list_landing("transactions").days[0].fingerprint != before  # the day starts by itself
    assert account(days) == (4, 2, 2, 0)
    (corrected,) = [r for r in rows_of("silver.transactions") if r["_row"] == 2]
    assert (corrected["amount"], corrected["_file"].endswith("x.csv")) == (15.3, True)
    assert account(days) == (4, 2, 2, 0)  # and again


def test_a_row_that_could_not_be_parsed_is_replaced(days: Days, correct: Callable[..., dict[str, Any]]) -> None:
    correct(lambda line: row(9) if '{"line"' in line["_received"] else None)
    assert account(days) == (4, 2, 2, 0)
    assert [r["_row"] for r in rows_of("silver.transactions") if r["transaction_id"] == row(9)["transaction_id"]] == [
        -1
    ]


def test_a_second_identical_correction_writes_nothing(days: Days, correct: Callable[..., dict[str, Any]]) -> None:
    correct(amount)
    before = stores.landing().list(FILE)
    assert correct(amount)["written"] is False
    assert stores.landing().list(FILE) == before


def test_the_same_csv_after_the_corrected_rows_were_ingested_writes_nothing(
    days: Days, correct: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    correct(amount)
    days.ingest(copy_log="bronze/_log/k")
    assert call("--corrections", tmp_path / "refused.csv")["written"] is False


def test_corrections_accumulate_and_the_last_one_of_a_row_counts(
    days: Days, correct: Callable[..., dict[str, Any]]
) -> None:
    correct(amount)
    correct(lambda line: {"customer_id": "7", "quantity": "6"} if line["quantity"] == "six" else None)
    correct(lambda line: {"amount": "99"} if line["amount"] == "15,30" else None)
    assert account(days) == (4, 3, 1, 0)
    assert sorted(r["amount"] for r in rows_of("silver.transactions")) == [15.3, 15.3, 99.0]


def test_a_file_sent_again_keeps_the_corrections_of_unchanged_rows(
    days: Days, correct: Callable[..., dict[str, Any]]
) -> None:
    correct(amount)
    days.arrive("x.csv", [row(7), row(8), row(2, amount="15,30")])
    assert account(days) == (4, 3, 1, 0)


def test_the_correction_of_a_row_that_upstream_has_changed_is_not_applied(
    days: Days, correct: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    correct(amount)
    days.arrive("x.csv", [row(1), row(2, amount="20"), row(3)])
    assert account(days) == (4, 3, 1, 0)
    assert "a correction is not applied: its row is no longer in the file" in caplog.text
    assert sorted(r["amount"] for r in rows_of("silver.transactions")) == [15.3, 15.3, 20.0]


def test_deleting_the_corrections_undoes_them(days: Days, correct: Callable[..., dict[str, Any]]) -> None:
    correct(amount)
    assert account(days) == (4, 2, 2, 0)
    stores.landing().delete(FILE)
    assert account(days) == (4, 1, 3, 0)


def test_nothing_is_written_when_a_row_would_be_refused_again(
    days: Days, correct: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(StageError) as error:
        correct(lambda line: {"amount": "15.30"} if line["amount"] else {})
    assert "these rows would be refused again; nothing was written" in str(error.value)
    assert "line 4: customer_id is missing; quantity is not a number (ask upstream" in str(error.value)
    assert stores.landing().list(FILE) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param("a,b\n1,2\n", "no column _file, _received", id="another-csv"),
        pytest.param(f"{','.join([*reenter.REFUSAL_COLUMNS, *SOURCE.columns])}\n", "has no rows", id="no-rows"),
        pytest.param("\udcff", "cannot be read as csv", id="not-utf-8"),
    ],
)
def test_a_csv_that_is_no_export_is_refused(days: Days, tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "other.csv"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(StageError, match=why):
        call("--corrections", path)
    assert stores.landing().list(FILE) == []


def test_a_row_that_is_not_refused_is_not_corrected(days: Days, correct: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(StageError, match="has no such refused row"):
        correct(lambda _: {"_received": json.dumps(row(1))})


def test_corrections_that_cannot_be_read_hold_the_day(days: Days) -> None:
    stores.landing().write(FILE, b"{}")
    with pytest.raises(StageError, match="is not as ml reenter writes it"):
        days.ingest(copy_log="bronze/_log/k")


def test_the_refused_rows_of_another_source_are_corrected_in_its_own_columns(
    days: Days, resources: Resources, tmp_path: Path
) -> None:
    put_deliveries(resources)
    couriers = days.of("deliveries")
    couriers.arrive("x.csv", [parcel(1), parcel(2, hub=None)])
    couriers.ingest()
    path = tmp_path / "refused.csv"
    assert call("--export", path, source="deliveries")["rows"] == 1
    header, refused = path.read_text().splitlines()
    assert header == "_file,_row,_reason,_remedy,_received,parcel_id,hub,weight"
    path.write_text(f"{header}\n{refused.replace(',p2,,250', ',p2,south,250')}\n")
    before = listing.list_landing("transactions")
    facts = call("--corrections", path, source="deliveries")
    assert (facts["file"], facts["corrected"]) == (f"deliveries/{DAY}/{listing.CORRECTIONS}", 1)
    assert listing.list_landing("transactions") == before
    assert couriers.ingest()["silver"] == 2
    assert sorted(r["delivered_by"] for r in rows_of("silver.deliveries")) == ["north", "south"]


def test_a_column_named_line_is_a_column(days: Days, resources: Resources, tmp_path: Path) -> None:
    """A row that could not be parsed is exported as its `line`, and nothing else."""
    put_deliveries(resources, clean=CLEAN.replace("hub", "line"))
    source = load_source("deliveries")
    columns = {
        "line": source.columns["hub"],
        "parcel_id": source.columns["parcel_id"],
        "weight": source.columns["weight"],
    }
    resources.put(source.model_copy(update={"columns": columns, "daily": {}}))
    couriers = days.of("deliveries")
    couriers.arrive(
        "x.csv", [{"parcel_id": "p1", "line": "7", "weight": "heavy"}, {"parcel_id": "p2", "line": "8", "weight": "1"}]
    )
    couriers.ingest()
    path = tmp_path / "refused.csv"
    call("--export", path, source="deliveries")
    path.write_text(path.read_text().replace(",7,p1,heavy", ",7,p1,250"))
    call("--corrections", path, source="deliveries")
    assert couriers.ingest()["silver"] == 2


def test_corrections_from_before_a_column_was_added_still_apply(
    days: Days, resources: Resources, correct: Callable[..., dict[str, Any]]
) -> None:
    correct(amount)
    resources.change_source(columns=dict(SOURCE.columns) | {"coupon": SOURCE.columns["country"]})
    assert account(days) == (4, 2, 2, 0)
