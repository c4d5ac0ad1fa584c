"""Days of purchases that land on a whole machine."""

from __future__ import annotations

from datetime import date, timedelta

from tests.support.machine import Machine

HEADER = "transaction_id,customer_id,occurred_at,product_id,category,channel,country,quantity,unit_price,amount\n"


def purchases(day: date, rows: int, name: str = "T") -> bytes:
    lines = [f"{name}{n},C{n:07},{day}T10:00:{n % 60:02},P1,books,online,DE,1,9.5,9.5\n" for n in range(rows)]
    return (HEADER + "".join(lines)).encode()


def new_day(machine: Machine) -> date:
    """The day after the newest one that anything is known of."""
    code = (
        "from ml import days, land; print(max([*days.ingested(), *(d.day for d in land.listing('transactions').days)]))"
    )
    return date.fromisoformat(machine.python("-c", code).stdout.strip()) + timedelta(days=1)
