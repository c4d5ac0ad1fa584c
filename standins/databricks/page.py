"""The HTML page of a run: its tasks, their states and their output."""

from __future__ import annotations

import html
from datetime import UTC, datetime

from standins.databricks.results import Run

_LAST = 200_000  # characters of output that a page shows, from the end

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{name} – Databricks run {id}</title>{refresh}
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; }}
table {{ border-collapse: collapse; }} th, td {{ text-align: left; padding: .3rem .8rem; border-bottom: 1px solid #ddd; }}
pre {{ background: #f6f6f6; padding: .8rem; overflow-x: auto; white-space: pre-wrap; }}
.SUCCESS {{ color: #176f2c; }} .FAILED, .TIMEDOUT {{ color: #b00020; }} .RUNNING {{ color: #0057b8; }}
</style>
<h1>{name}</h1>
<p>Run {id} of the local Databricks: <b class="{state}">{state}</b>. {message}</p>
<table><thead><tr><th>task<th>state<th>attempt<th>started (UTC)<th>seconds<th>message</tr></thead><tbody>
{rows}
</tbody></table>
{logs}
<p><a href="/ledger?service=databricks">All submissions</a></p></html>"""


def run_page(run: Run, logs: dict[int, str]) -> str:
    """The page; `logs` maps the run ids of the tasks to their output."""
    rows, sections = [], []
    for task in run["tasks"]:
        state = task["result"] or task["state"]
        seconds = (task["end_time"] - task["start_time"]) / 1000 if task["end_time"] and task["start_time"] else None
        cells = [
            task["task_key"], state, task["attempt_number"] + 1, _clock(task["start_time"]),
            "–" if seconds is None else f"{seconds:.1f}", task["error"] or task["message"],
        ]  # fmt: skip
        rows.append(f'<tr class="{state}">' + "".join(f"<td>{html.escape(str(cell))}" for cell in cells) + "</tr>")
        key = html.escape(task["task_key"])
        sections.append(f'<h2 id="{key}">{key}</h2><pre>{html.escape(logs[task["run_id"]][-_LAST:])}</pre>')
    state = run["result"] or "RUNNING"
    return _PAGE.format(
        name=html.escape(run["run_name"]),
        id=run["run_id"],
        state=state,
        message=html.escape(run["message"]),
        refresh="" if run["result"] else '<meta http-equiv="refresh" content="2">',
        rows="\n".join(rows),
        logs="\n".join(sections),
    )


def _clock(milliseconds: int) -> str:
    if not milliseconds:
        return "–"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
