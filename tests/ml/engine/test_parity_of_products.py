"""The queries over products: what they say, and the same on DuckDB and on Spark."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from tests.support.data.sql_rows import LEAP, NUMBERS, PRODUCTS, silver


def snapshot(*products: tuple[str | None, float | None, float | None]) -> pa.Table:
    rows = [{"product_id": p, "list_price": price, "unit_cost": cost} for p, price, cost in products]
    return pa.Table.from_pylist(rows, PRODUCTS)


def products_of(both: Callable[..., pa.Table], lines: list[dict[str, Any]], known: pa.Table) -> dict[str, Any]:
    """The features of each product by its id, as of the leap day."""
    rows = both("features/products", {"transactions": silver(lines), "products": known}, as_of=LEAP).to_pylist()
    assert all(row.pop("as_of") == LEAP for row in rows)
    return {row.pop("product_id"): row for row in rows}


def sale(product: str | None, price: float | None, quantity: float = 1.0, **line: Any) -> dict[str, Any]:
    amount = round((price or 2.0) * quantity, 2)
    return {"product_id": product, "unit_price": price, "quantity": quantity, "amount": amount} | line


def test_a_product_has_its_sales_and_its_margin_at_the_known_cost(both: Callable[..., pa.Table]) -> None:
    lines = [sale("p", 10.0, 2), sale("p", 11.0), sale("p", 12.0), sale("p", 20.0)]
    assert products_of(both, lines, snapshot(("p", 12.5, 8.0))) == {
        "p": {
            "sales": 4, "units": 5.0, "revenue": 63.0, "median_price": 11.5, "margin": 3.5,
            "margin_pct": pytest.approx(3.5 / 11.5),
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "known", "expected"),
    [
        pytest.param([], [("p", 12.5, 8.0)], (0, 0.0, 12.5, 4.5, 0.36), id="unsold-has-the-list-price"),
        pytest.param([sale("p", 10.0)], [], (1, 10.0, 10.0, None, None), id="without-a-snapshot-no-margin"),
        pytest.param([sale("p", 10.0)], [("p", 12.0, None)], (1, 10.0, 10.0, None, None), id="cost-not-known"),
        pytest.param([sale("p", 10.0)], [("p", None, 6.0)], (1, 10.0, 10.0, 4.0, 0.4), id="list-price-not-known"),
        pytest.param([], [("p", None, 6.0)], (0, 0.0, None, None, None), id="nothing-known-of-its-price"),
        pytest.param([], [("p", 0.0, 0.0)], (0, 0.0, 0.0, 0.0, None), id="free-product"),
        pytest.param([sale("p", None, 4)], [("p", 9.0, 1.0)], (1, 8.0, 2.0, 1.0, 0.5), id="price-from-the-amount"),
        pytest.param(
            [sale("p", 5.0), sale("p", 5.0, -1.0, kind="return")], [("p", 9.0, 4.0)], (1, 5.0, 5.0, 1.0, 0.2),
            id="a-return-is-no-sale",
        ),
        pytest.param(
            [sale("p", 5.0), sale("p", 9.0, day=LEAP + timedelta(1))], [("p", 9.0, 4.0)], (1, 5.0, 5.0, 1.0, 0.2),
            id="nothing-of-later-days",
        ),
    ],
)  # fmt: skip
def test_what_is_missing_is_zero_the_list_price_or_not_known(
    both: Callable[..., pa.Table], lines: list[dict[str, Any]], known: list[Any], expected: tuple[Any, ...]
) -> None:
    row = products_of(both, lines, snapshot(*known))["p"]
    assert tuple(row[name] for name in ("sales", "revenue", "median_price", "margin", "margin_pct")) == expected


def test_lines_without_a_product_are_of_none(both: Callable[..., pa.Table]) -> None:
    assert products_of(both, [sale(None, 10.0), sale(None, 5.0)], snapshot()) == {}
    assert list(products_of(both, [sale(None, 10.0)], snapshot(("p", 1.0, None)))) == ["p"]


def test_an_empty_snapshot_may_have_its_columns_as_text(both: Callable[..., pa.Table]) -> None:
    texts = pa.schema(pa.field(name, pa.string()) for name in PRODUCTS.names).empty_table()
    assert products_of(both, [sale("p", 10.0)], texts)["p"]["sales"] == 1


def priced(*rows: tuple[str | None, str | None, str | None]) -> pa.Table:
    usual = {"name": "n", "category": None}
    given = [usual | {"product_id": p, "list_price": price, "unit_cost": cost} for p, price, cost in rows]
    texts = pa.schema([(name, pa.string()) for name in ("product_id", "name", "category", "list_price", "unit_cost")])
    table = pa.Table.from_pylist(given, texts)
    keys = {"_day": pa.repeat(pa.scalar(LEAP), len(rows)), "_file": pa.repeat("f", len(rows))}
    for name, values in (keys | {"_row": range(len(rows)), "_id": range(len(rows))}).items():
        table = table.append_column(name, pa.array(values, pa.int64()) if isinstance(values, range) else values)
    return table


def test_a_table_of_products_reads_every_number_alike(both: Callable[..., pa.Table]) -> None:
    rows = [(str(n), text, other) for n, text in enumerate(NUMBERS) for other in ("1", text)]
    rows += [(str(n), "1", text) for n, text in enumerate(NUMBERS)]
    both("sources/products", {"bronze": priced(*rows)}, max_price=100000)


@pytest.mark.parametrize(
    ("rows", "outcomes"),
    [
        pytest.param([("p", "1", None), ("q", "1", None)], ["silver", "silver"], id="two-products"),
        pytest.param([("p", "1", "2"), ("p", "1", "2")], ["silver", "duplicate"], id="the-same-row-twice"),
        pytest.param([("p", "1.50", None), ("p", "1.5", None)], ["silver", "duplicate"], id="other-spelling"),
        pytest.param([("p", "0", None), ("p", "-0", None)], ["silver", "duplicate"], id="minus-zero"),
        pytest.param([("p", "1", None), ("p", "2", None)], ["quarantined"] * 2, id="two-prices"),
        pytest.param([("p", "1", None), ("p", "1", "2")], ["quarantined"] * 2, id="with-and-without-a-cost"),
        pytest.param(
            [("p", "1", None), ("p", "2", None), ("p", "1", None)], ["quarantined", "quarantined", "duplicate"],
            id="a-copy-of-a-contradicted-row",
        ),
        pytest.param([("p", "1", None), ("p", "six", None)], ["silver", "quarantined"], id="a-bad-row-contradicts-none"),
        pytest.param([(None, "1", None), (None, "2", None)], ["quarantined"] * 2, id="no-product"),
    ],
)  # fmt: skip
def test_a_product_has_one_row(both: Callable[..., pa.Table], rows: list[Any], outcomes: list[str]) -> None:
    judged = both("sources/products", {"bronze": priced(*rows)}, max_price=100000)
    assert judged["outcome"].to_pylist() == outcomes


@pytest.mark.parametrize(
    ("row", "column", "reason", "remedy"),
    [
        pytest.param((None, "1", None), "product_id", "product_id is missing", "ask upstream which", id="no-product"),
        pytest.param(("p\ufffd", "1", None), "product_id", "not UTF-8", "as UTF-8", id="not-utf-8"),
        pytest.param(("p", None, None), "list_price", "list_price is missing", "zero is allowed", id="no-price"),
        pytest.param(("p", "1,50", None), "list_price", "decimal comma", "decimal point", id="decimal-comma"),
        pytest.param(("p", "nan", None), "list_price", "not finite", "write a number", id="not-finite"),
        pytest.param(("p", "-1", None), "list_price", "negative", "left out", id="negative-price"),
        pytest.param(("p", "100001", None), "list_price", "beyond", "clean.settings.max_price", id="shifted-point"),
        pytest.param(("p", "1", "six"), "unit_cost", "not a number", "leave it empty", id="cost-in-words"),
        pytest.param(("p", "1", "-1"), "unit_cost", "negative", "leave it empty", id="negative-cost"),
    ],
)
def test_a_refused_product_says_why_and_what_to_do(
    both: Callable[..., pa.Table], row: Any, column: str, reason: str, remedy: str
) -> None:
    (judged,) = both("sources/products", {"bronze": priced(row)}, max_price=100000).to_pylist()
    assert (judged["outcome"], judged["refused_column"]) == ("quarantined", column)
    assert reason in judged["reason"]
    assert remedy in judged["remedy"]


def test_a_refused_product_lists_every_reason(both: Callable[..., pa.Table]) -> None:
    (judged,) = both("sources/products", {"bronze": priced((None, "six", "-1"))}, max_price=100000).to_pylist()
    assert judged["reason"] == "product_id is missing; list_price is not a number; unit_cost is negative"
    assert judged["remedy"].count(";") == 2
