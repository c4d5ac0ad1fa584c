"""The page of one validation: each expectation with its reason and result, and examples of failing rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ml.pages import notes, table, tiles
from ml.pages import page as framed
from ml.validate.expectations import Outcome, Suite

# sentences are aligned left, unlike the figures of other pages
STYLE = """<style>th,td{text-align:left}.expected td:nth-child(3){width:27%}.expected td:nth-child(4){width:17%}
.state{font-weight:600;white-space:nowrap}.warned{color:#8a6100}
td code{font-size:12px;color:var(--soft)}.examples{margin:0 0 18px;overflow-x:auto}.examples th{font-weight:400}</style>"""


def validation_page(
    name: str, suite: Suite, subject: str, rows: Mapping[str, int], outcomes: Sequence[Outcome], run_key: str
) -> bytes:
    """A self-contained HTML page. `name` is that of the source or model, `subject` what of it was validated.

    `rows` is the number of rows by frame.
    """
    failed = [outcome for outcome in outcomes if not outcome.passed]
    critical = [outcome for outcome in failed if outcome.expectation.severity == "critical"]
    state = "failed" if critical else "passed"
    checked = "on " + " and ".join(f"{count:,} {name}" for name, count in rows.items())
    figures = [
        ("Result", state, f"run {run_key}"),
        ("Expectations met", f"{len(outcomes) - len(failed)} of {len(outcomes)}", checked),
        ("Critical failures", str(len(critical)), "each fails the stage"),
        ("Warnings", str(len(failed) - len(critical)), "reported and continued"),
    ]
    head = ["", "Expectation", "Why", "Found"]
    ordered = sorted(outcomes, key=lambda o: (o.passed, o.expectation.severity != "critical"))
    body = [
        STYLE,
        tiles(figures),
        notes([outcome.sentence for outcome in critical]),
        '<h2>Expectations</h2><section class="expected">',
        table(head, [_cells(outcome) for outcome in ordered]),
        "</section>",
        *(_examples(outcome) for outcome in failed if outcome.examples),
    ]
    return framed(f"{name} · {suite.name} · {subject}", suite.description, body)


def _cells(outcome: Outcome) -> tuple[str, str, str, str]:
    expectation = outcome.expectation
    if outcome.passed:
        state = '<span class="state good">✓ met</span>'
    elif expectation.severity == "critical":
        state = '<span class="state bad">✗ failed</span>'
    else:
        state = f'<span class="state warned">! {escape(expectation.severity)}</span>'
    rule = ", ".join(f"{key}={value}" for key, value in expectation.kwargs.items())
    description = f"{escape(expectation.description)}<br><code>{escape(expectation.type)}({escape(rule)})</code>"
    return state, description, f'<span class="soft">{escape(expectation.meta.why)}</span>', escape(outcome.observed)


def _examples(outcome: Outcome) -> str:
    head = list(outcome.examples[0])
    rows = [[escape(example[name]) for name in head] for example in outcome.examples]
    title = f"<h2>Rows that fail: {escape(outcome.expectation.description)}</h2>"
    return f'{title}<section class="examples">{table(head, rows)}</section>'
