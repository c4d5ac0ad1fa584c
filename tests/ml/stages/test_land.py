"""`python -m ml land`: day files as upstream writes them, the same files every time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from ml import cli
from ml.landing import listing
from ml.ops import ingested_days
from ml.storage.stores import FolderStore


@pytest.fixture
def landing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    monkeypatch.setenv("LANDING_URI", tmp_path.as_uri())
    return FolderStore(tmp_path)


def facts(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, object]:
    cli.main(["land", *argv])
    result: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


SHOP = ("--data", "shop", "--size", "300", "--from", "2024-03-01", "--to", "2024-03-08")


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        pytest.param(["--data", "nosuch"], "there are cdnow, shop", id="unknown-data-set"),
        pytest.param(
            ["--data", "cdnow", "--source", "products"],
            "cdnow has no source 'products'; it has transactions",
            id="source-that-the-data-set-lacks",
        ),
        pytest.param(["--data", "cdnow", "--drift", "1"], "no drift", id="settings-of-a-fixed-data-set"),
        pytest.param(
            ["--data", "cdnow", "--from", "2024-01-01"], "1997-01-01 to 1998-06-30", id="days-outside-its-range"
        ),
        pytest.param(
            ["--data", "shop", "--source", "products", "--from", "2025-05-01"],
            "source products, has no day",
            id="days-without-a-snapshot",
        ),
        pytest.param(["--data", "shop", "--size", "0"], "size 0", id="shop-without-customers"),
    ],
)
def test_a_refusal_lists_what_exists(
    landing: FolderStore, capsys: pytest.CaptureFixture[str], argv: list[str], why: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["land", *argv])
    assert stopped.value.code == 1
    assert why in capsys.readouterr().err
    assert landing.list() == []


def test_a_second_run_writes_nothing(landing: FolderStore, capsys: pytest.CaptureFixture[str]) -> None:
    first = facts(capsys, *SHOP)
    before = landing.list()
    again = facts(capsys, *SHOP)
    assert (first["written"], again["written"], again["files"]) == (8, 0, 8)
    assert landing.list() == before


def test_a_damaged_or_missing_file_is_replaced(landing: FolderStore, capsys: pytest.CaptureFixture[str]) -> None:
    facts(capsys, *SHOP)
    before = landing.list()
    damaged = landing.read("transactions/2024-03-02/shop.csv")
    landing.write("transactions/2024-03-02/shop.csv", damaged[:-1] + b"!")  # the size stays the same
    landing.delete("transactions/2024-03-05/shop.csv")
    assert facts(capsys, *SHOP)["written"] == 2
    assert landing.list() == before


def test_another_format_replaces_the_old_one(landing: FolderStore, capsys: pytest.CaptureFixture[str]) -> None:
    facts(capsys, *SHOP)
    result = facts(capsys, *SHOP, "--format", "tsv")
    assert (result["written"], result["removed"]) == (8, 8)
    assert {blob.name.rpartition(".")[2] for blob in landing.list()} == {"tsv"}


def test_files_of_other_senders_are_kept(landing: FolderStore, capsys: pytest.CaptureFixture[str]) -> None:
    landing.write("transactions/2024-03-01/late.csv", b"theirs")
    facts(capsys, *SHOP)
    assert landing.read("transactions/2024-03-01/late.csv") == b"theirs"


def test_mixed_lands_every_format_with_the_same_rows(
    landing: FolderStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert facts(capsys, *SHOP, "--format", "mixed")["files"] == 8
    listed = listing.list_landing("transactions")
    assert not listed.strays
    rows: dict[str, int] = {}
    for day in listed.days:
        path = tmp_path / day.files[0].name
        if path.suffix in (".csv", ".tsv"):
            options = csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
            count = csv.read_csv(path, parse_options=options).num_rows
        elif path.suffix == ".jsonl":
            count = len([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
        else:
            count = pq.read_metadata(path).num_rows
        rows[path.suffix] = rows.get(path.suffix, 0) + count
    as_csv = facts(capsys, *SHOP, "--format", "csv")
    assert set(rows) == {".csv", ".tsv", ".jsonl", ".parquet"}
    assert sum(rows.values()) == as_csv["rows"]


def test_list_prints_the_days_and_writes_nothing(landing: FolderStore, capsys: pytest.CaptureFixture[str]) -> None:
    result = facts(capsys, "--data", "cdnow", "--from", "1998-06-28", "--list")
    days = ["1998-06-28", "1998-06-29", "1998-06-30"]
    assert result == {"data": "cdnow", "days": days, "sources": {"transactions": days}}
    assert landing.list() == []


def test_list_of_one_source_prints_its_days_only(landing: FolderStore, capsys: pytest.CaptureFixture[str]) -> None:
    result = facts(capsys, "--data", "shop", "--source", "products", "--to", "2024-08-01", "--list")
    assert result["days"] == ["2024-01-01", "2024-04-01", "2024-07-01"]
    assert result["sources"] == {"products": result["days"]}


def test_each_source_has_a_folder_of_its_own(landing: FolderStore, capsys: pytest.CaptureFixture[str]) -> None:
    result = facts(capsys, "--data", "shop", "--size", "900", "--from", "2024-03-31", "--to", "2024-04-02")
    assert [blob.name for blob in landing.list()] == [
        "products/2024-04-01/shop.csv",
        "transactions/2024-03-31/shop.csv",
        "transactions/2024-04-01/shop.csv",
        "transactions/2024-04-02/shop.csv",
    ]
    sources: Any = result["sources"]
    assert {source: numbers["files"] for source, numbers in sources.items()} == {"products": 1, "transactions": 3}
    assert (result["days"], result["files"], result["first_day"]) == (3, 4, "2024-03-31")
    assert result["rows"] == sources["products"]["rows"] + sources["transactions"]["rows"]


def test_one_source_can_be_landed_alone(landing: FolderStore, capsys: pytest.CaptureFixture[str]) -> None:
    facts(capsys, *SHOP)
    result = facts(capsys, "--data", "shop", "--source", "products")
    assert (result["files"], result["written"], list(result["sources"])) == (6, 6, ["products"])  # type: ignore[call-overload]
    assert len(landing.list("transactions/")) == 8


def test_nothing_is_ingested_before_the_first_ingestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_URI", tmp_path.as_uri())
    assert ingested_days.ingested_fingerprints("transactions") == {}
