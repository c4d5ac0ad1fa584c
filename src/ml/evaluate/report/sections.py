"""The parts of a model's page beside its metrics: the gate's checks, reasons, errors, groups, behaviour, evidence."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ml.config import ModelConfig
from ml.gate.decide import decide
from ml.pages import bar, table

NOT_MEASURED = '<span class="bad">not measured</span>'


def _left(text: str) -> str:
    return f'<div style="text-align:left">{text}</div>'


def _share(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.1%}"


def gate(config: ModelConfig, found: Mapping[str, Any]) -> str:
    """What the gate says to this evaluation by the rules of the moment it was made; the decision that counts is recorded."""
    decision = decide(config.gate, found)
    word = '<b class="good">would approve it</b>' if decision.approved else '<b class="bad">would refuse it</b>'
    rows = []
    for check in decision.checks:
        mark = '<span class="good">passed</span>' if check.passed else '<span class="bad">failed</span>'
        measured = "" if check.measured is None else f"{check.measured:,.4g}"
        why = f'<br><span class="small bad">{escape(check.reason)}</span>' if check.reason else ""
        rows.append([f"{escape(check.rule)}{why}", measured, _left(escape(check.bound)), mark])
    lead = f"<p>By the rules of this moment the gate {word}: {escape(decision.against)}.</p>"
    return f"<h2>The gate's checks</h2><section>{lead}{table(['check', 'measured', 'allowed', ''], rows)}</section>"


def importance(found: Mapping[str, Any], drawn: str) -> str:
    """SHAP: the picture, and the features by mean absolute contribution."""
    told = found.get("explanations")
    if not told or not told["features"]:
        return ""
    widest = told["features"][0]["mean_abs"] or 1
    bars = "".join(
        bar(entry["feature"], entry["mean_abs"] / widest, f"{entry['mean_abs']:.3f}") for entry in told["features"]
    )
    lead = (
        "<p class='soft small'>Each dot is a customer of the test. Right of the line the feature raises the probability, "
        "left of it it lowers it; red is a high value of the feature, blue a low one, grey unknown or a text.</p>"
    )
    below = (
        f"<p class='soft small'>Mean |SHAP| in log-odds over {told['rows']:,} test rows ({escape(told['method'])}).</p>"
    )
    return f"<h2>What it looks at</h2><section>{lead}{drawn}</section><section>{bars}{below}</section>"


def cohorts(found: Mapping[str, Any]) -> str:
    """Where errors concentrate."""
    lines = [
        [escape(part["where"]), f"{part['rows']:,}",
         f"{part['error_rate']:.1%}<br><span class='soft small'>{part['low']:.1%} to {part['high']:.1%}</span>",
         f"{part['lift']:.2f}×"]
        for part in found.get("cohorts") or ()
    ]  # fmt: skip
    below = (
        "<p class='soft small'>Found by a shallow tree in one half of the test's customers, counted in the other half; "
        "only where the model is wrong more often than for all, beyond luck (95 %).</p>"
    )
    body = (
        table(["customers with", "rows", "errors", "against all"], lines)
        if lines
        else "<p>No such customers found.</p>"
    )
    return f"<h2>Where it is wrong more often</h2><section>{body}{below}</section>"


def groups(config: ModelConfig, found: Mapping[str, Any]) -> str:
    """The same metrics by group, and how far apart they are."""
    if not config.evaluate.groups.columns:
        return "<h2>Groups of customers</h2><section><p>No column of groups is configured.</p></section>"
    parts = []
    for name in config.evaluate.groups.columns:
        measured = (found.get("groups") or {}).get(name) or {"problem": "not measured"}
        if why := measured.get("problem"):
            parts.append(f"<section><p><b>{escape(name)}</b>: {escape(why)}</p></section>")
            continue
        metrics = ("accuracy", "precision", "recall", "selection_rate")
        lines = [
            [escape(group["group"]), f"{group['rows']:,}", *(_share(group[metric]) for metric in metrics)]
            for group in measured["groups"]
        ]
        if len(lines) > 1:
            for title, what in (("largest difference", "difference"), ("lowest over highest", "ratio")):
                apart = [_share((measured["disparity"].get(metric) or {}).get(what)) for metric in metrics]
                lines.append([f"<b>{title}</b>", "", *apart])
        left = measured.get("left_out")
        few = f"{left} rows are of groups below {config.evaluate.groups.min_rows} and not compared. " if left else ""
        one = "One group only: there is nothing to compare. " if len(measured["groups"]) == 1 else ""
        note = f"<p class='soft small'>{few}{one}Small groups are put together as (others).</p>"
        head = [name, "rows", "accuracy", "precision", "recall", "predicted to " + config.label.name]
        parts.append(f"<section>{table(head, lines)}{note}</section>")
    return f"<h2>Groups of customers</h2>{''.join(parts)}"


def behaviour(config: ModelConfig, found: Mapping[str, Any]) -> str:
    """What happens to the probability when a customer does something."""
    lines = []
    for check in config.evaluate.behaviour:
        measured = (found.get("behaviour") or {}).get(check.name) or {}
        change = measured.get("mean_change")
        expected = "must not rise" if check.expect == "not_higher" else "must not fall"
        why = measured.get("problem")
        told = f'<br><span class="small bad">{escape(why)}</span>' if why else ""
        lines.append(
            [f"{escape(check.name.replace('_', ' '))}{told}", _left(expected),
             NOT_MEASURED if change is None else f"{change:+.3f}", _share(measured.get("violations"))]
        )  # fmt: skip
    if not lines:
        return ""
    head = ["when a customer", "the probability", "changes on average by", "wrong way for"]
    return f"<h2>Does it behave</h2><section>{table(head, lines)}</section>"


def evidence(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands behind the numbers, as lines for the page's last table."""
    cost, learnt = found.get("cost") or {}, found.get("learnt_through") or {}
    valid, schema = found.get("validation") or {}, found.get("schema") or {}
    time, size = cost.get("ms_per_1000_rows"), cost.get("model_bytes")
    passed = {"True": "passed", "False": "failed"}.get(str(valid.get("passed")), "not known")
    same = {"True": "equal to", "False": "other than"}.get(str(schema.get("equal")), "not compared with")
    known = ", ".join(f"{who} until {day or 'not known'}" for who, day in learnt.items()) or "not known"
    return [
        ("data validation", f"{passed} ({valid.get('report') or 'no report'})"),
        ("input columns", f"{same} {schema.get('table', 'the feature table')} version {schema.get('table_version')}"),
        ("learnt from labels", f"{known}; the test starts at {found.get('test_from')}"),
        ("scoring 1,000 rows", "not measured" if time is None else f"{time:.0f} ms"),
        ("size of the model", "not measured" if size is None else f"{size / 1e6:.2f} MB"),
    ]
