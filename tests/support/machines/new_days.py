"""Days of purchases that land on a whole machine."""

from __future__ import annotations

from datetime import date, timedelta

from tests.support.machines.machine import Machine

HEADER = "transaction_id,customer_id,occurred_at,product_id,category,channel,country,quantity,unit_price,amount\n"


def purchases(day: date, rows: int, name: str = "T") -> bytes:
    lines = [f"{name}{n},C{n:07},{day}T10:00:{n % 60:02},P1,books,online,DE,1,9.5,9.5\n" for n in range(rows)]
    return (HEADER + "".join(lines)).encode()


def new_day(machine: Machine) -> date:
    """The day after the newest one of transactions that has landed or is ingested."""
    return date.fromisoformat(machine.storage("newest_day", "transactions")) + timedelta(days=1)
