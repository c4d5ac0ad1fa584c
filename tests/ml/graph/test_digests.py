"""Input digests: which days' contents a day is built from."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from ml.graph import Contents, Input
from ml.graph.digests import input_digest

D = [date(2024, 2, 27) + timedelta(days=n) for n in range(8)]
SALES: dict[str, Any] = {"table": "silver.sales", "node": "silver.sales", "kind": "facts"}
PRICES: dict[str, Any] = {"table": "silver.prices", "node": "silver.prices", "kind": "snapshot"}


def digests(*inputs: Input, sales: dict[date, str], prices: dict[date, str] | None = None) -> dict[date, str]:
    contents = {"silver.sales": Contents(sales), "silver.prices": Contents(prices or {})}
    return {day: input_digest(inputs, day, contents).digest for day in D}


def changed(before: dict[date, str], after: dict[date, str]) -> list[date]:
    return [day for day in D if before[day] != after[day]]


def facts(**days: str) -> dict[date, str]:
    return {D[int(name[1:])]: content for name, content in days.items()}


ALL = facts(d0="a", d1="b", d2="c", d3="d", d4="e", d5="f", d6="g", d7="h")


@pytest.mark.parametrize(
    ("back", "stale"),
    [
        pytest.param(None, D[2:], id="all: every day from it on"),
        pytest.param(1, D[2:3], id="one day: itself"),
        pytest.param(3, D[2:5], id="three days: it and the next two"),
    ],
)
def test_a_changed_day_changes_exactly_the_days_whose_window_reaches_it(back: int | None, stale: list[date]) -> None:
    edge = Input(**SALES, back=back)
    assert changed(digests(edge, sales=ALL), digests(edge, sales=ALL | {D[2]: "corrected"})) == stale


def test_a_late_day_changes_the_days_after_it_and_a_day_without_rows_changes_none() -> None:
    edge = Input(**SALES, back=None)
    without = {day: content for day, content in ALL.items() if day != D[2]}
    assert changed(digests(edge, sales=without), digests(edge, sales=ALL)) == D[2:]
    assert changed(digests(edge, sales=without), digests(edge, sales=without | {D[2]: "0" * 32})) == []


def test_contents_of_two_days_exchanged_are_other_inputs() -> None:
    edge = Input(**SALES, back=None)
    exchanged = ALL | {D[1]: ALL[D[2]], D[2]: ALL[D[1]]}
    assert changed(digests(edge, sales=ALL), digests(edge, sales=exchanged)) == D[1:]


def test_a_snapshot_counts_from_its_day_to_the_next_one() -> None:
    edges = (Input(**SALES, back=1), Input(**PRICES))
    old = digests(*edges, sales=ALL, prices={D[1]: "spring", D[4]: "summer"})
    assert changed(old, digests(*edges, sales=ALL, prices={D[1]: "corrected", D[4]: "summer"})) == D[:4]
    assert changed(old, digests(*edges, sales=ALL, prices={D[1]: "spring", D[4]: "corrected"})) == D[4:]
    assert changed(old, digests(*edges, sales=ALL, prices={D[1]: "spring", D[4]: "summer", D[6]: "sale"})) == D[6:]


def test_the_same_snapshot_sent_again_changes_nothing() -> None:
    edges = (Input(**SALES, back=1), Input(**PRICES))
    once = digests(*edges, sales=ALL, prices={D[1]: "spring"})
    assert changed(once, digests(*edges, sales=ALL, prices={D[1]: "spring", D[5]: "spring"})) == []


def test_before_the_first_snapshot_the_first_one_counts() -> None:
    prices = Contents({D[3]: "spring", D[5]: "summer"})
    assert [prices.in_force(day) for day in D] == [D[3]] * 5 + [D[5]] * 3
    assert Contents({}).in_force(D[0]) is None


def test_a_snapshot_without_rows_is_none() -> None:
    prices = Contents({D[1]: "0" * 32, D[3]: "spring", D[5]: "0" * 32})
    assert [prices.in_force(day) for day in D] == [D[3]] * 8


def test_a_snapshot_older_than_its_maximum_age_is_missing() -> None:
    contents = {"silver.sales": Contents(ALL), "silver.prices": Contents({D[1]: "spring"})}
    edges = (Input(**SALES, back=1), Input(**PRICES, max_age=3))
    assert [input_digest(edges, day, contents).missing for day in D] == [()] * 5 + [("silver.prices",)] * 3


def test_missing_inputs_are_named_and_own_covers_only_the_day_itself() -> None:
    edges = (Input(**SALES, back=None), Input(**PRICES))
    contents = {"silver.sales": Contents({D[0]: "a"}), "silver.prices": Contents({})}
    first, second = (input_digest(edges, day, contents) for day in D[:2])
    assert first.missing == ("silver.prices",)
    assert second.missing == ("silver.sales", "silver.prices")
    corrected = {"silver.sales": Contents({D[0]: "other"}), "silver.prices": Contents({D[0]: "spring"})}
    assert input_digest(edges, D[1], corrected).own == second.own
    assert input_digest(edges, D[0], corrected).own != first.own


def test_the_order_of_the_inputs_changes_nothing() -> None:
    a, b = Input(**SALES, back=None), Input(**PRICES)
    assert digests(a, b, sales=ALL, prices={D[0]: "x"}) == digests(b, a, sales=ALL, prices={D[0]: "x"})
