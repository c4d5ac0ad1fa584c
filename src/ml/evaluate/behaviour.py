"""Does the model behave as everybody knows customers do? Each test row is changed, and predicted again.

The checks stand in the config (`evaluate.behaviour`): who buys once more is not more likely to leave. What is
measured is the share of rows for which the probability moves the wrong way by more than the tolerance.
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


def behaviours(
    rows: pa.Table, predict: Predict, before: NDArray[np.float64], features: set[str], settings: Evaluate
) -> dict[str, Any]:
    """Each check's `violations` (share of the rows), `mean_change` and `worst`; or the `problem` that left it unmeasured.

    `before` are the predictions of the unchanged rows.
    """
    return {check.name: _one(check, rows, predict, before, features) for check in settings.behaviour}


def _one(
    check: Behaviour, rows: pa.Table, predict: Predict, before: NDArray[np.float64], features: set[str]
) -> dict[str, Any]:
    import numpy as np

    told = {"violations": None, "mean_change": None, "worst": None, "expect": check.expect}
    if not rows.num_rows or not np.isfinite(before).all():
        return told | {"problem": "there is nothing to measure"}
    taken = [name for name in (*check.replace, *check.add) if name in features]
    if not taken:
        named = ", ".join((*check.replace, *check.add))
        return told | {"problem": f"the model takes none of the columns that it changes ({named})"}
    amounts = {amount for name, amount in check.add.items() if isinstance(amount, str) and name in features}
    if missing := sorted(amounts - set(rows.schema.names)):
        return told | {"problem": f"the test rows have no column {', '.join(missing)}"}
    after = predict(_changed(check, rows, taken))
    moved = after - before
    if not np.isfinite(moved).all():
        return told | {"problem": "predictions of the changed rows are not finite numbers"}
    wrong = moved if check.expect == "not_higher" else -moved
    return told | {
        "violations": round(float((wrong > check.tolerance + 1e-9).mean()), 9),
        "mean_change": round(float(moved.mean()), 9),
        "worst": round(float(moved[int(wrong.argmax())]), 9),
        "changed": taken,
    }


def _changed(check: Behaviour, rows: pa.Table, columns: list[str]) -> pa.Table:
    """The rows after the change; what is not known (null) stays unknown when something is added to it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in columns:
        if name in check.replace:
            new = pa.chunked_array([pa.repeat(pa.scalar(check.replace[name], pa.float64()), rows.num_rows)])
        else:
            amount = check.add[name]
            more = rows[amount].cast(pa.float64()) if isinstance(amount, str) else pa.scalar(amount, pa.float64())
            new = pc.add(rows[name].cast(pa.float64()), more)
        rows = rows.set_column(rows.schema.get_field_index(name), name, new)
    return rows
