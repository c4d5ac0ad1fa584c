"""Behavioural tests: each test row is changed and predicted again, and the probability must move the expected way.

The tests are in the config (`evaluate.behaviour`): changes of which everybody knows which way they move the probability.
Measured is the share of rows whose probability moves the wrong way by more than the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ml.config.gate import Behaviour, Evaluate

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Predict = Callable[[pa.Table], NDArray[np.float64]]


def measure_behaviours(
    rows: pa.Table, predict: Predict, before: NDArray[np.float64], features: set[str], settings: Evaluate
) -> dict[str, Any]:
    """Each test's `violations` (share of the rows), `mean_change` and `worst`; `problem` says why it was not measured.

    `before` are the predictions of the unchanged rows.
    """
    return {check.name: _measure(check, rows, predict, before, features) for check in settings.behaviour}


def _measure(
    check: Behaviour, rows: pa.Table, predict: Predict, before: NDArray[np.float64], features: set[str]
) -> dict[str, Any]:
    import numpy as np

    result = {"violations": None, "mean_change": None, "worst": None, "expect": check.expect}
    if not rows.num_rows or not np.isfinite(before).all():
        return result | {"problem": "there are no test rows with finite predictions"}
    columns = [name for name in (*check.replace, *check.add) if name in features]
    if not columns:
        changed = ", ".join((*check.replace, *check.add))
        return result | {"problem": f"the model uses none of the columns that the test changes ({changed})"}
    amounts = {amount for name, amount in check.add.items() if isinstance(amount, str) and name in features}
    if missing := sorted(amounts - set(rows.schema.names)):
        return result | {"problem": f"the test rows have no column {', '.join(missing)}"}
    after = predict(_change_rows(check, rows, columns))
    change = after - before
    if not np.isfinite(change).all():
        return result | {"problem": "predictions of the changed rows are not finite numbers"}
    wrong = change if check.expect == "not_higher" else -change
    return result | {
        "violations": round(float((wrong > check.tolerance + 1e-9).mean()), 9),
        "mean_change": round(float(change.mean()), 9),
        "worst": round(float(change[int(wrong.argmax())]), 9),
        "changed": columns,
    }


def _change_rows(check: Behaviour, rows: pa.Table, columns: list[str]) -> pa.Table:
    """The rows after the change; a null to which an amount is added stays null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in columns:
        if name in check.replace:
            new = pa.chunked_array([pa.repeat(pa.scalar(check.replace[name], pa.float64()), rows.num_rows)])
        else:
            amount = check.add[name]
            increase = rows[amount].cast(pa.float64()) if isinstance(amount, str) else pa.scalar(amount, pa.float64())
            new = pc.add(rows[name].cast(pa.float64()), increase)
        rows = rows.set_column(rows.schema.get_field_index(name), name, new)
    return rows
