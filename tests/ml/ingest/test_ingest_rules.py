"""The rules of include/sql/sources/transactions.sql, one by one: which rows become silver, which are refused and why, which are duplicates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.config import SourceConfig, load_source
from ml.ingest import bronze, cleaning
from tests.support.data.bronze_days import DAY, row

SOURCE = load_source("transactions")
LONDON = SOURCE.model_copy(update={"timezone": "Europe/London"})


def clean(
    *rows: Mapping[str, Any], day: date = DAY, source: SourceConfig = SOURCE, file: str = "f", start: int = 1
) -> cleaning.Cleaned:
    keys = [{"_day": day, "_file": file, "_row": start + n} for n in range(len(rows))]
    table = pa.Table.from_pylist([key | dict(r) for key, r in zip(keys, rows, strict=True)], bronze.schema(source))
    return cleaning.clean(source, table, [])


def refusal(**changed: Any) -> dict[str, Any]:
    """The quarantine row of the one refused row."""
    cleaned = clean(row(**changed))
    assert cleaned.silver.num_rows == 0
    (refused,) = cleaned.quarantine.to_pylist()
    return refused


BEYOND = str(float(SOURCE.clean.settings["max_abs_amount"]) * 1.01)


@pytest.mark.parametrize(
    ("changed", "column", "reason", "remedy"),
    [
        pytest.param({"customer_id": None}, "customer_id", "is missing", "ask upstream", id="customer-missing"),
        pytest.param({"customer_id": " \t"}, "customer_id", "is missing", "ask upstream", id="customer-blank"),
        pytest.param({"country": "Espa\ufffda"}, "country", "has characters that are not UTF-8", "UTF-8", id="latin-1"),
        pytest.param({"customer_id": "\ufffd"}, "customer_id", "has characters that are", "UTF-8", id="unreadable-id"),
        pytest.param({"occurred_at": None}, "occurred_at", "is missing", "ask upstream", id="time-missing"),
        pytest.param({"occurred_at": "28/06/2011"}, "occurred_at", "is not a time", "ISO 8601", id="time-locale"),
        pytest.param({"occurred_at": "1309255200"}, "occurred_at", "is not a time", "ISO 8601", id="time-epoch"),
        pytest.param({"occurred_at": "2011-06-31"}, "occurred_at", "is not a time", "ISO 8601", id="time-no-such-day"),
        pytest.param({"occurred_at": "2011-06-28T24:00"}, "occurred_at", "is not a time", "ISO", id="time-24-o-clock"),
        pytest.param(
            {"occurred_at": "2011-06-28T10:00 CET"}, "occurred_at", "is not a time", "ISO", id="time-zone-name"
        ),
        pytest.param({"occurred_at": "2011-06-28 +02:00"}, "occurred_at", "is not a time", "ISO", id="offset-alone"),
        pytest.param(
            {"occurred_at": "2011-06-29"},
            "occurred_at",
            "is not on the day",
            "folder of its own day",
            id="time-other-day",
        ),
        pytest.param({"quantity": None}, "quantity", "is missing", "ask upstream", id="quantity-missing"),
        pytest.param({"quantity": "six"}, "quantity", "is not a number", "digits", id="quantity-words"),
        pytest.param({"quantity": "1_000"}, "quantity", "is not a number", "digits", id="quantity-underscore"),
        pytest.param({"quantity": "0x10"}, "quantity", "is not a number", "digits", id="quantity-hexadecimal"),
        pytest.param({"quantity": "1,5"}, "quantity", "has a decimal comma", "decimal point", id="quantity-comma"),
        pytest.param({"quantity": "NaN"}, "quantity", "is not finite", "number", id="quantity-nan"),
        pytest.param({"quantity": "-Infinity"}, "quantity", "is not finite", "number", id="quantity-infinite"),
        pytest.param(
            {"quantity": "100001"},
            "quantity",
            "is beyond all",
            "raise clean.settings.max_abs_quantity",
            id="quantity-absurd",
        ),
        pytest.param(
            {"quantity": "-100001"},
            "quantity",
            "is beyond all",
            "raise clean.settings.max_abs_quantity",
            id="return-absurd",
        ),
        pytest.param(
            {"quantity": "9" * 400},
            "quantity",
            "is beyond all",
            "raise clean.settings.max_abs_quantity",
            id="quantity-overflow",
        ),
        pytest.param({"quantity": "0"}, "quantity", "is zero", "ask upstream", id="quantity-zero"),
        pytest.param({"quantity": "-0.0"}, "quantity", "is zero", "ask upstream", id="quantity-negative-zero"),
        pytest.param({"unit_price": "£2"}, "unit_price", "is not a number", "leave it empty", id="price-currency"),
        pytest.param({"unit_price": "2,55"}, "unit_price", "has a decimal comma", "point", id="price-comma"),
        pytest.param({"unit_price": "inf"}, "unit_price", "is not finite", "number", id="price-infinite"),
        pytest.param({"unit_price": "-1"}, "unit_price", "is negative", "positive price", id="price-negative"),
        pytest.param({"unit_price": BEYOND}, "unit_price", "is beyond all", "decimal shift", id="price-absurd"),
        pytest.param({"amount": None}, "amount", "is missing", "ask upstream", id="amount-missing"),
        pytest.param({"amount": "1.234,50"}, "amount", "has a decimal comma", "separators", id="amount-comma"),
        pytest.param({"amount": "1,234.50"}, "amount", "is not a number", "digits", id="amount-thousands"),
        pytest.param({"amount": "nan"}, "amount", "is not finite", "number", id="amount-nan"),
        pytest.param({"amount": BEYOND}, "amount", "is beyond all", "decimal shift", id="amount-absurd"),
    ],
)
def test_refused_with_column_reason_and_remedy(changed: dict, column: str, reason: str, remedy: str) -> None:
    refused = refusal(**changed)
    assert refused["column"] == column
    assert refused["reason"].startswith(f"{column} {reason}")
    assert remedy in refused["remedy"]
    assert (refused["day"], refused["_file"], refused["_row"]) == (DAY, "f", 1)
    assert json.loads(refused["record"]) == row(**changed)


def test_a_row_is_refused_once_with_all_its_reasons() -> None:
    refused = refusal(customer_id=None, quantity="0", amount="x")
    assert refused["column"] == "customer_id"
    assert refused["reason"] == "customer_id is missing; quantity is zero; amount is not a number"
    assert refused["remedy"].count("; ") >= 2


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param({}, {"kind": "purchase", "quantity": 6.0, "unit_price": 2.55, "amount": 15.3}, id="a-purchase"),
        pytest.param({"quantity": "-6", "amount": "-15.3"}, {"kind": "return"}, id="negative-quantity-is-a-return"),
        pytest.param({"amount": "-1"}, {"kind": "return", "quantity": 6.0}, id="negative-amount-is-a-return"),
        pytest.param({"amount": "0"}, {"kind": "purchase", "amount": 0.0}, id="zero-amount-is-allowed"),
        pytest.param({"unit_price": ""}, {"unit_price": None}, id="price-is-optional"),
        pytest.param({"quantity": "100000"}, {"quantity": 100000.0}, id="quantity-exactly-at-limit"),
        pytest.param({"quantity": "+.5"}, {"quantity": 0.5}, id="number-without-leading-digit"),
        pytest.param({"quantity": "5."}, {"quantity": 5.0}, id="number-ending-in-point"),
        pytest.param({"amount": "1.5E2"}, {"amount": 150.0}, id="number-with-exponent"),
        pytest.param({"customer_id": "  17850\u00a0"}, {"customer_id": "17850"}, id="ids-are-trimmed"),
        pytest.param({"customer_id": "17850.0"}, {"customer_id": "17850"}, id="id-that-pandas-made-a-float"),
        pytest.param({"customer_id": "00017"}, {"customer_id": "00017"}, id="leading-zeros-stay"),
        pytest.param({"country": " "}, {"country": None}, id="blank-is-null"),
        pytest.param({"occurred_at": "2011-06-28"}, {"occurred_at": datetime(2011, 6, 28, tzinfo=UTC)}, id="day-only"),
        pytest.param(
            {"occurred_at": "2011-06-28 10:30:15.123456789"},
            {"occurred_at": datetime(2011, 6, 28, 10, 30, 15, 123456, tzinfo=UTC)},
            id="nanoseconds-are-cut",
        ),
        pytest.param(
            {"occurred_at": "2011-06-28T10:30Z"}, {"occurred_at": datetime(2011, 6, 28, 10, 30, tzinfo=UTC)}, id="utc"
        ),
        pytest.param(
            {"occurred_at": "2011-06-28T00:30:00-0530"},
            {"occurred_at": datetime(2011, 6, 28, 6, tzinfo=UTC)},
            id="offset-without-colon",
        ),
        pytest.param(
            {"occurred_at": "2011-06-29T01:30+02"},
            {"occurred_at": datetime(2011, 6, 28, 23, 30, tzinfo=UTC), "day": DAY},
            id="offset-of-hours-that-leads-back-into-the-day",
        ),
    ],
)
def test_accepted(changed: dict, expected: dict) -> None:
    cleaned = clean(row(**changed))
    (silver,) = cleaned.silver.to_pylist()
    assert cleaned.quarantine.num_rows == 0
    assert {name: silver[name] for name in expected} == expected


SPRING, AUTUMN = date(2011, 3, 27), date(2011, 10, 30)


@pytest.mark.parametrize(
    ("day", "written", "instant"),
    [
        pytest.param(DAY, "2011-06-28T00:00", "2011-06-27T23:00", id="summer-midnight-starts-the-day"),
        pytest.param(DAY, "2011-06-28T23:59:59.999999", "2011-06-28T22:59:59.999999", id="last-microsecond"),
        pytest.param(DAY, "2011-06-27T23:00Z", "2011-06-27T23:00", id="first-instant-in-utc"),
        pytest.param(DAY, "2011-06-27T22:59:59Z", None, id="second-before-is-the-day-before"),
        pytest.param(DAY, "2011-06-28T23:00Z", None, id="next-midnight-is-the-next-day"),
        pytest.param(DAY, "2011-06-29T00:00", None, id="next-local-midnight-is-the-next-day"),
        pytest.param(SPRING, "2011-03-27T00:59", "2011-03-27T00:59", id="spring-before-the-change"),
        pytest.param(SPRING, "2011-03-27T01:30", "2011-03-27T01:30", id="spring-the-skipped-hour"),
        pytest.param(SPRING, "2011-03-27T02:00", "2011-03-27T01:00", id="spring-after-the-change"),
        pytest.param(SPRING, "2011-03-27T23:30", "2011-03-27T22:30", id="spring-day-has-23-hours"),
        pytest.param(SPRING, "2011-03-27T23:30Z", None, id="spring-utc-evening-is-the-next-day"),
        pytest.param(AUTUMN, "2011-10-30T00:59", "2011-10-29T23:59", id="autumn-before-the-change"),
        pytest.param(AUTUMN, "2011-10-30T01:30", "2011-10-30T00:30", id="autumn-double-hour-is-the-first"),
        pytest.param(AUTUMN, "2011-10-30T01:30+00:00", "2011-10-30T01:30", id="autumn-second-hour-by-offset"),
        pytest.param(AUTUMN, "2011-10-30T02:00", "2011-10-30T02:00", id="autumn-after-the-change"),
        pytest.param(AUTUMN, "2011-10-29T23:00Z", "2011-10-29T23:00", id="autumn-day-starts-in-summer-time"),
        pytest.param(AUTUMN, "2011-10-30T23:59:59Z", "2011-10-30T23:59:59", id="autumn-day-ends-in-winter-time"),
    ],
)
def test_a_day_is_from_midnight_to_midnight_in_the_sources_zone(day: date, written: str, instant: str | None) -> None:
    instants = clean(row(occurred_at=written), day=day, source=LONDON).silver["occurred_at"].to_pylist()
    assert instants == ([] if instant is None else [datetime.fromisoformat(instant).replace(tzinfo=UTC)])


@pytest.mark.parametrize(
    ("zone", "day", "written", "instant"),
    [
        # Cuba's clocks go back at one to midnight: 2011-11-13 begins once and has 00:30 twice
        pytest.param("America/Havana", date(2011, 11, 13), "2011-11-13T00:30", "2011-11-13T04:30", id="midnight-twice"),
        # Brazil's clocks went from midnight to one: 2011-10-16 began at 01:00
        pytest.param("America/Sao_Paulo", date(2011, 10, 16), "2011-10-16", "2011-10-16T03:00", id="no-midnight"),
        pytest.param("Asia/Kolkata", DAY, "2011-06-27T18:30Z", "2011-06-27T18:30", id="zone-of-half-hours"),
    ],
)
def test_days_of_odd_zones(zone: str, day: date, written: str, instant: str) -> None:
    source = SOURCE.model_copy(update={"timezone": zone})
    instants = clean(row(occurred_at=written), day=day, source=source).silver["occurred_at"].to_pylist()
    assert instants == [datetime.fromisoformat(instant).replace(tzinfo=UTC)]


def test_exact_duplicates_are_dropped_and_the_first_row_is_kept() -> None:
    cleaned = clean(row(1), row(2), row(1, customer_id=" 17850 "), row(1))
    assert [(r["transaction_id"], r["_row"]) for r in cleaned.silver.to_pylist()] == [("536366", 1), ("536367", 2)]
    assert cleaned.duplicates == {DAY: 2}


def test_rows_that_differ_in_one_column_only_are_not_duplicates() -> None:
    rows = [row(1)] + [
        row(1, **{name: value}) for name, value in row(1).items() if name == "country" for value in (None, "x")
    ]
    assert clean(*rows).silver.num_rows == 3


def test_a_transaction_has_as_many_lines_as_there_are_different_ones() -> None:
    cleaned = clean(row(1), row(1, product_id="x"), row(1, product_id="x", amount="1"), row(1, customer_id="17850.0"))
    assert cleaned.silver.num_rows == 4


def test_lines_of_one_transaction_with_several_customers_are_all_refused() -> None:
    cleaned = clean(row(1), row(1, product_id="x", customer_id="other"), row(1, customer_id=None), row(2))
    assert [r["transaction_id"] for r in cleaned.silver.to_pylist()] == [row(2)["transaction_id"]]
    assert {r["column"] for r in cleaned.quarantine.to_pylist()} == {"customer_id"}
    assert (
        cleaned.quarantine["reason"].to_pylist() == ["customer_id is not the same on all lines of the transaction"] * 3
    )


def test_the_same_row_of_another_day_is_not_a_duplicate() -> None:
    table = pa.concat_tables(
        pa.Table.from_pylist(
            [{"_day": day, "_file": "f", "_row": 1, **row(occurred_at=str(DAY))}], bronze.schema(SOURCE)
        )
        for day in (DAY, date(2011, 6, 29))
    )
    cleaned = cleaning.clean(SOURCE, table, [])
    assert (cleaned.silver.num_rows, cleaned.quarantine.num_rows, cleaned.duplicates) == (1, 1, {})


def test_a_repeated_refused_row_is_refused_once() -> None:
    cleaned = clean(row(quantity="0"), row(quantity="0"))
    assert (cleaned.quarantine.num_rows, cleaned.duplicates) == (1, {DAY: 1})


VALUES: Mapping[str, Sequence[str | None]] = {
    "customer_id": ["7", "8.0", " ", None, "ü;-> x"],
    "occurred_at": ["2011-06-28", "2011-06-28T23:59:59+01:00", "2011-06-27T23:59Z", "yesterday", None],
    "quantity": ["1", "-2", "0", "1,5", "nan", "1e99", None],
    "unit_price": ["1", "-1", None, "x"],
    "amount": ["3", "0", "-1", "inf", None],
    "country": ["UK", None],
}
ANYTHING = st.fixed_dictionaries(
    {name: st.one_of(st.sampled_from(values), st.text(max_size=8)) for name, values in VALUES.items()}
).map(lambda changed: row(**changed))


@settings(max_examples=25, deadline=None)
@given(st.lists(ANYTHING, max_size=30).flatmap(lambda rows: st.permutations(rows + rows[::2])))
def test_every_row_of_any_input_has_exactly_one_outcome(rows: list[dict[str, Any]]) -> None:
    cleaned = clean(*rows)
    silver, refused = cleaned.silver.to_pylist(), cleaned.quarantine.to_pylist()
    assert len(silver) + len(refused) + cleaned.duplicates[DAY] == len(rows)
    assert all(r["customer_id"] and r["occurred_at"].date() == DAY and r["quantity"] and r["kind"] for r in silver)
    assert all(r["column"] and r["reason"] and r["remedy"] for r in refused)
    places = [r["_row"] for r in silver + refused]
    assert len(set(places)) == len(places)
