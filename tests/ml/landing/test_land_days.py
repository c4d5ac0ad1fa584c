"""Landed days: the contents of the landing store by day, and which days are due."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from ml.days.due import Due, due_days
from ml.landing.listing import (
    LandedDay,
    fingerprint,
    landed_days,
    list_landing,
    save_listing,
    saved_fingerprints,
)
from ml.storage import stores
from ml.storage.stores import Blob

NOW = datetime(2024, 3, 5, 12, tzinfo=UTC)
D1, D2, D3 = date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)


def blob(name: str, size: int = 10, etag: str = "e1") -> Blob:
    return Blob(name, size, etag)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param("transactions/2024-02-30/a.csv", "no day 2024-02-30", id="no-such-day"),
        pytest.param("transactions/2023-02-29/a.csv", "no day", id="no-leap-day-in-2023"),
        pytest.param("transactions/20240229/a.csv", "YYYY-MM-DD", id="a-day-without-dashes"),
        pytest.param("transactions/2024-2-9/a.csv", "YYYY-MM-DD", id="a-day-without-zeros"),
        pytest.param("transactions/٢٠٢٤-02-29/a.csv", "YYYY-MM-DD", id="digits-of-another-script"),
        pytest.param("transactions/a.csv", "not transactions/", id="no-day-folder"),
        pytest.param("transactions/2024-02-29/b/a.csv", "not transactions/", id="too-deep"),
        pytest.param("transactions/2024-02-29/../2024-02-28/a.csv", "not transactions/", id="path-climbs"),
        pytest.param("transactions/../a.csv", "YYYY-MM-DD", id="parent-folder-as-day"),
        pytest.param("/transactions/2024-02-29/a.csv", "not transactions/", id="leading-slash"),
        pytest.param("transactions/2024-02-29/..\\a.csv", "file name", id="backslash"),
        pytest.param("transactions/2024-02-29/", "file name", id="folder-name-with-content"),
        pytest.param("transactions/2024-02-29/*.csv", "file name", id="wildcard"),
        pytest.param("transactions/2024-02-29/_part.csv", "file name", id="hidden-to-spark"),
        pytest.param("transactions/2024-02-29/.a.csv", "file name", id="hidden-file"),
        pytest.param("transactions/2024-02-29/a\n.csv", "file name", id="line-break-in-name"),
        pytest.param("transactions/2024-02-29/a.xlsx", "format not known", id="unknown-format"),
        pytest.param("transactions/2024-02-29/a.CSV", "lower case", id="extension-in-capitals"),
        pytest.param("transactions/2024-02-29/a.csv.gz", "format not known", id="compressed"),
        pytest.param("transactions/2024-02-29/csv", "format not known", id="no-extension"),
        pytest.param("orders/2024-02-29/a.csv", "not transactions/", id="another-table"),
    ],
)
def test_a_file_out_of_place_is_a_stray_with_a_reason(name: str, why: str) -> None:
    landing = landed_days([blob(name), blob("transactions/2024-02-29/good.csv")], "transactions")
    assert [day.day for day in landing.days] == [D2]
    assert [stray.name for stray in landing.strays] == [name]
    assert why in landing.strays[0].why


@pytest.mark.parametrize(
    "name", ["transactions", "transactions/", "transactions/2024-02-29", "transactions/2024-02-29/"]
)
def test_folder_markers_of_hierarchical_accounts_are_neither_days_nor_strays(name: str) -> None:
    assert landed_days([blob(name, size=0)], "transactions") == landed_days([], "transactions")


def test_an_empty_file_is_landed_and_left_for_ingestion_to_refuse() -> None:
    assert [day.day for day in landed_days([blob("transactions/2024-02-29/a.csv", size=0)], "transactions").days] == [
        D2
    ]


def test_days_come_oldest_first_with_all_their_files_by_name() -> None:
    names = ["transactions/2024-03-01/b.csv", "transactions/2024-02-29/x.jsonl", "transactions/2024-03-01/a part-2.tsv"]
    days = landed_days([blob(name) for name in names], "transactions").days
    assert [(day.day, [file.name for file in day.files]) for day in days] == [
        (D2, ["transactions/2024-02-29/x.jsonl"]),
        (D3, ["transactions/2024-03-01/a part-2.tsv", "transactions/2024-03-01/b.csv"]),
    ]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([blob("a"), blob("b"), blob("c")], id="file-added"),
        pytest.param([blob("a")], id="file-removed"),
        pytest.param([blob("a"), blob("b", etag="e2")], id="written-again"),
        pytest.param([blob("a"), blob("b", size=11)], id="grown"),
        pytest.param([blob("a"), blob("B")], id="renamed"),
    ],
)
def test_a_fingerprint_changes_with_the_files(other: list[Blob]) -> None:
    assert fingerprint(other) != fingerprint([blob("a"), blob("b")])


def test_a_fingerprint_does_not_depend_on_the_listings_order() -> None:
    assert fingerprint([blob("a"), blob("b")]) == fingerprint([blob("b"), blob("a")])


@pytest.fixture
def landing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> stores.Store:
    for name in ("LANDING_URI", "LAKE_URI"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, (tmp_path / name).as_uri())
    return stores.landing()


def test_each_source_has_a_listing_of_its_own(landing: stores.Store) -> None:
    for name in (
        "product/2024-02-29/a.csv",
        "products/2024-02-29/a.csv",
        "products/2024-03-01/a.csv",
        "products/x.csv",
    ):
        landing.write(name, b"x")
    assert [day.day for day in list_landing("product").days] == [D2]
    assert [day.day for day in list_landing("products").days] == [D2, D3]
    assert [day.day for day in list_landing("products", [D3]).days] == [D3]
    assert [day.day for day in list_landing("products", [D1, D3]).days] == [D3]
    assert list_landing("product").strays == ()
    assert [stray.name for stray in list_landing("products").strays] == ["products/x.csv"]
    before = list_landing("products").days[0].fingerprint
    landing.write("product/2024-02-29/b.csv", b"x")
    assert list_landing("products").days[0].fingerprint == before


def test_saved_listings_of_two_sources_under_one_run_key_are_two(landing: stores.Store) -> None:
    landing.write("product/2024-02-29/a.csv", b"x")
    landing.write("products/2024-03-01/a.csv", b"x")
    first, second = (save_listing(source, None, "key") for source in ("product", "products"))
    assert (list(saved_fingerprints(first)), list(saved_fingerprints(second))) == ([D2], [D3])


A, B, C = (LandedDay(day, (), f"f{n}") for n, day in enumerate((D1, D2, D3)))


@pytest.mark.parametrize(
    ("ingested", "requested", "expected"),
    [
        pytest.param({}, {}, Due(days=(A, B, C)), id="new-day-is-due"),
        pytest.param({D1: "f0", D2: "f1", D3: "f2"}, {}, Due(days=()), id="ingested-day-is-not-due"),
        pytest.param({D1: "f0", D2: "old", D3: "f2"}, {}, Due(days=(B,)), id="changed-day-is-due"),
        pytest.param({}, {D1: "f0"}, Due(days=(B, C), waiting=(A,)), id="requested-day-waits"),
        pytest.param({D1: "f0"}, {D1: "f0"}, Due(days=(B, C)), id="requested-and-ingested-day-is-not-due"),
        pytest.param({}, {D1: "old"}, Due(days=(A, B, C)), id="changed-since-it-was-requested"),
        pytest.param({D1: "old"}, {D1: "old"}, Due(days=(A, B, C)), id="changed-since-it-was-ingested"),
        pytest.param({D1: "older"}, {D1: "f0"}, Due(days=(B, C), waiting=(A,)), id="requested-change-waits"),
    ],
)
def test_what_is_due(ingested: dict[date, str], requested: dict[date, str], expected: Due) -> None:
    assert due_days([A, B, C], ingested, requested, bulk_days=3) == expected


def test_more_days_than_bulk_days_are_a_history_and_the_message_says_what_to_do() -> None:
    landed = [LandedDay(D1 + timedelta(n), (), f"f{n}") for n in range(32)]
    due = due_days(landed, {}, {}, bulk_days=31)
    assert (due.days, due.history) == ((), tuple(landed))
    assert "32 new or changed days" in due.why
    assert "2024-02-28..2024-03-30" in due.why


def test_as_many_days_as_bulk_days_are_due() -> None:
    landed = [LandedDay(D1 + timedelta(n), (), f"f{n}") for n in range(31)]
    assert due_days(landed, {}, {}, bulk_days=31) == Due(days=tuple(landed))


def several(days: int, seconds_ago: float) -> list[LandedDay]:
    """New days: the last has a file written `seconds_ago` before NOW, the others an hour before."""
    times = [NOW - timedelta(hours=1)] * (days - 1) + [NOW - timedelta(seconds=seconds_ago)]
    return [LandedDay(D1 + timedelta(n), (Blob(f"{n}", 1, "e", written=at),), f"f{n}") for n, at in enumerate(times)]


@pytest.mark.parametrize(
    ("days", "requested", "seconds_ago", "coming"),
    [
        pytest.param(1, 0, 1, False, id="one-day"),
        pytest.param(7, 0, 1, False, id="a-week-that-is-sent-again"),
        pytest.param(8, 0, 1, True, id="more-than-a-week-while-files-come-in"),
        pytest.param(8, 0, 29, True, id="the-newest-file-half-a-minute-ago"),
        pytest.param(8, 0, 31, False, id="quiet-for-half-a-minute"),
        pytest.param(8, 7, 1, True, id="one-new-day-while-a-week-waits"),
        pytest.param(8, 7, 31, False, id="one-new-day-while-a-week-waits-and-it-is-quiet"),
        pytest.param(8, 0, -60, True, id="the-clock-of-the-store-is-ahead"),
    ],
)
def test_a_history_that_is_being_copied_in_is_not_taken_for_arrivals(
    days: int, requested: int, seconds_ago: float, coming: bool
) -> None:
    landed = several(days, seconds_ago)
    known = {day.day: day.fingerprint for day in landed[:requested]}
    new, waiting = tuple(landed[requested:]), tuple(landed[:requested])
    due = due_days(landed, {}, known, bulk_days=31, now=NOW)
    assert (due.days, due.coming, due.waiting) == (() if coming else new, new if coming else (), waiting)
    assert ("files still come in" in due.why) == coming


def test_waiting_and_ingested_days_do_not_count_towards_bulk_days() -> None:
    landed = [LandedDay(D1 + timedelta(n), (), f"f{n}") for n in range(500)]
    known = {day.day: day.fingerprint for day in landed[:-1]}
    assert due_days(landed, known, {}, bulk_days=31).days == (landed[-1],)
    assert due_days(landed, {}, known, bulk_days=31).days == (landed[-1],)


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        pytest.param({D1: "f0"}, Due(days=(B,), held=(A,), waiting=(C,)), id="held-day-is-not-due"),
        pytest.param({D1: "old"}, Due(days=(A, B), waiting=(C,)), id="changed-since-it-was-held"),
        pytest.param({D3: "f2"}, Due(days=(A, B), held=(C,)), id="held-after-it-was-requested"),
        pytest.param({D1: "f0", D2: "f1", D3: "f2"}, Due(days=(), held=(A, B, C)), id="all-held"),
    ],
)
def test_a_held_day_is_not_due_until_its_files_change(held: dict[date, str], expected: Due) -> None:
    assert due_days([A, B, C], {}, {D3: "f2"}, bulk_days=3, held=held) == expected


def test_held_days_do_not_count_towards_bulk_days() -> None:
    landed = [LandedDay(D1 + timedelta(n), (), f"f{n}") for n in range(500)]
    held = {day.day: day.fingerprint for day in landed[:-1]}
    assert due_days(landed, {}, {}, bulk_days=31, held=held).days == (landed[-1],)
