"""The sections of a model's report page beside its metrics: gate, attribution, cohorts, fairness, behaviour, evidence."""

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


def gate(config: ModelConfig, evaluation: Mapping[str, Any]) -> str:
    """The gate's checks by the rules at the time of the evaluation. The decision that counts is recorded separately."""
    decision = decide(config.gate, evaluation)
    verdict = '<b class="good">would approve it</b>' if decision.approved else '<b class="bad">would reject it</b>'
    rows = []
    for check in decision.checks:
        mark = '<span class="good">passed</span>' if check.passed else '<span class="bad">failed</span>'
        measured = "" if check.measured is None else f"{check.measured:,.4g}"
        reason = f'<br><span class="small bad">{escape(check.reason)}</span>' if check.reason else ""
        rows.append([f"{escape(check.rule)}{reason}", measured, _left(escape(check.bound)), mark])
    lead = f"<p>With the rules at the time of this evaluation the gate {verdict}: {escape(decision.against)}.</p>"
    return f"<h2>Gate checks</h2><section>{lead}{table(['check', 'measured', 'required', 'result'], rows)}</section>"


def feature_attribution(evaluation: Mapping[str, Any], beeswarm: str) -> str:
    """SHAP: the beeswarm plot (SVG), and the features by mean absolute contribution."""
    explanations = evaluation.get("explanations")
    if not explanations or not explanations["features"]:
        return ""
    features = explanations["features"]
    widest = features[0]["mean_abs"] or 1
    bars = "".join(
        bar(feature["feature"], feature["mean_abs"] / widest, f"{feature['mean_abs']:.3f}") for feature in features
    )
    lead = (
        "<p class='soft small'>Each dot is a row of the test. To the right of the line the feature raises the "
        "probability, to the left it lowers it. Red is a high value of the feature, blue a low value, grey an unknown "
        "value or a text.</p>"
    )
    below = (
        f"<p class='soft small'>Mean |SHAP| in log-odds over {explanations['rows']:,} test rows "
        f"({escape(explanations['method'])}).</p>"
    )
    return f"<h2>Feature attribution (SHAP)</h2><section>{lead}{beeswarm}</section><section>{bars}{below}</section>"


def error_cohorts(config: ModelConfig, evaluation: Mapping[str, Any]) -> str:
    """The groups of rows with the highest error rates."""
    rows = [
        [escape(cohort["where"]), f"{cohort['rows']:,}",
         f"{cohort['error_rate']:.1%}<br><span class='soft small'>{cohort['low']:.1%} to {cohort['high']:.1%}</span>",
         f"{cohort['lift']:.2f}×"]
        for cohort in evaluation.get("cohorts") or ()
    ]  # fmt: skip
    below = (
        f"<p class='soft small'>A shallow decision tree finds cohorts among one half of the test's {escape(config.entity)} "
        "values; their errors are counted in the other half. Listed are cohorts whose 95 % interval is above the error rate "
        "of all rows.</p>"
    )
    body = (
        table(["cohort", "rows", "error rate", "relative to all"], rows)
        if rows
        else "<p>No cohort with a higher error rate found.</p>"
    )
    return f"<h2>Error cohorts</h2><section>{body}{below}</section>"


def fairness(config: ModelConfig, evaluation: Mapping[str, Any]) -> str:
    """The same metrics for each group, and the disparity between groups."""
    heading = "<h2>Fairness by group</h2>"
    if not config.evaluate.groups.columns:
        return f"{heading}<section><p>No column of groups is configured (evaluate.groups).</p></section>"
    parts = []
    for name in config.evaluate.groups.columns:
        measured = (evaluation.get("groups") or {}).get(name) or {"problem": "not measured"}
        if problem := measured.get("problem"):
            parts.append(f"<section><p><b>{escape(name)}</b>: {escape(problem)}</p></section>")
            continue
        metrics = ("accuracy", "precision", "recall", "selection_rate")
        rows = [
            [escape(group["group"]), f"{group['rows']:,}", *(_share(group[metric]) for metric in metrics)]
            for group in measured["groups"]
        ]
        if len(rows) > 1:
            for title, measure in (("largest difference", "difference"), ("lowest / highest", "ratio")):
                disparity = [_share((measured["disparity"].get(metric) or {}).get(measure)) for metric in metrics]
                rows.append([f"<b>{title}</b>", "", *disparity])
        left_out, least = measured.get("left_out"), config.evaluate.groups.min_rows
        few = f"{left_out} rows are in groups with fewer than {least} rows and are not compared. " if left_out else ""
        single = "There is only one group, so nothing is compared. " if len(measured["groups"]) == 1 else ""
        note = f"<p class='soft small'>{few}{single}Small groups are merged as (others).</p>"
        head = [name, "rows", "accuracy", "precision", "recall", f"selection rate (predicted: {config.label.name})"]
        parts.append(f"<section>{table(head, rows)}{note}</section>")
    return f"{heading}{''.join(parts)}"


def behavioural_tests(config: ModelConfig, evaluation: Mapping[str, Any]) -> str:
    """How the probability changes when a row is changed, and how often it changes the wrong way."""
    rows = []
    for check in config.evaluate.behaviour:
        measured = (evaluation.get("behaviour") or {}).get(check.name) or {}
        change = measured.get("mean_change")
        expected = "must not rise" if check.expect == "not_higher" else "must not fall"
        problem = measured.get("problem")
        note = f'<br><span class="small bad">{escape(problem)}</span>' if problem else ""
        rows.append(
            [f"{escape(check.name.replace('_', ' '))}{note}", _left(expected),
             NOT_MEASURED if change is None else f"{change:+.3f}", _share(measured.get("violations"))]
        )  # fmt: skip
    if not rows:
        return ""
    head = ["test: the row", "the probability", "mean change", "violations"]
    return f"<h2>Behavioural tests</h2><section>{table(head, rows)}</section>"


def evidence(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The evidence behind the metrics, as rows of the page's provenance table."""
    cost, learnt = evaluation.get("cost") or {}, evaluation.get("learnt_through") or {}
    validation, schema = evaluation.get("validation") or {}, evaluation.get("schema") or {}
    milliseconds, size = cost.get("ms_per_1000_rows"), cost.get("model_bytes")
    passed = {"True": "passed", "False": "failed"}.get(str(validation.get("passed")), "unknown")
    equal = {"True": "equal to", "False": "different from"}.get(str(schema.get("equal")), "not compared with")
    labels = ", ".join(f"{who} until {day or 'unknown'}" for who, day in learnt.items()) or "unknown"
    return [
        ("data validation", f"{passed} ({validation.get('report') or 'no report'})"),
        ("input columns", f"{equal} the pinned columns ({_tables(schema)})"),
        ("training labels", f"{labels}; the test starts on {evaluation.get('test_from')}"),
        *_shared(evaluation),
        ("scoring 1,000 rows", "not measured" if milliseconds is None else f"{milliseconds:.0f} ms"),
        ("size of the model", "not measured" if size is None else f"{size / 1e6:.2f} MB"),
    ]


def _tables(schema: Mapping[str, Any]) -> str:
    tables = schema.get("tables") or {}
    return ", ".join(f"{name} version {version}" for name, version in tables.items()) or "no table"


def _shared(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of a test that is split by key: how many of its entities were trained on."""
    shared = evaluation.get("shared_entities")
    if shared is None:
        return []
    counts = ", ".join(f"{who}: {'unknown' if count is None else count}" for who, count in shared.items())
    return [("test entities that were trained on", counts)]
