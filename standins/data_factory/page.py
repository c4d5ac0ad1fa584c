"""The HTML page of a pipeline run, at the path that it has in the portal of Data Factory.

No token is needed, as for the ledger: a link in Airflow carries none.
"""

from __future__ import annotations

import html
import json
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from standins.core.cloud import Cloud
from standins.core.errors import ApiError
from standins.data_factory.documents import FINAL, RUNS

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{name} – Data Factory run {id}</title>{refresh}
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; }}
table {{ border-collapse: collapse; }} th, td {{ text-align: left; padding: .3rem .8rem; border-bottom: 1px solid #ddd; }}
td {{ vertical-align: top; overflow-wrap: anywhere; }}
pre {{ margin: 0; white-space: pre-wrap; }}
.Succeeded {{ color: #176f2c; }} .Failed, .TimedOut {{ color: #b00020; }} .InProgress {{ color: #0057b8; }}
</style>
<h1>{name}</h1>
<p>Run {id} of the local Data Factory: <b class="{status}">{status}</b>, {start} – {end} (UTC). {message}</p>
<p>Parameters: <code>{parameters}</code></p>
<table><thead><tr><th>activity<th>state<th>seconds<th>files read<th>rows copied<th>rows skipped<th>error or output
</tr></thead><tbody>
{rows}
</tbody></table>
<p><a href="/ledger?service=data_factory">All submissions</a></p></html>"""


def routes(cloud: Cloud) -> APIRouter:
    router = APIRouter()

    @router.get("/en/monitoring/pipelineruns/{run_id}")
    def page(run_id: str) -> HTMLResponse:
        run = cloud.documents.get(RUNS, run_id)
        if run is None:
            raise ApiError(404, "NotFound", f"The pipeline run '{run_id}' could not be found.")
        values = {
            "name": run["pipelineName"],
            "id": run_id,
            "status": run["status"],
            "start": run["runStart"],
            "end": run["runEnd"] or "in progress",
            "message": run["message"],
            "parameters": json.dumps(run["parameters"]),
        }
        refresh = "" if run["status"] in FINAL else '<meta http-equiv="refresh" content="2">'
        rows = "\n".join(_row(record) for record in run["activities"].values())
        escaped = {key: html.escape(str(value)) for key, value in values.items()}
        return HTMLResponse(_PAGE.format(**escaped, refresh=refresh, rows=rows))

    return router


def _row(record: dict[str, Any]) -> str:
    output, milliseconds = record.get("output") or {}, record.get("durationInMs")
    cells = [
        record["activityName"],
        record["status"],
        "–" if milliseconds is None else f"{milliseconds / 1000:.1f}",
        *(output.get(key, "–") for key in ("filesRead", "rowsCopied", "rowsSkipped")),
    ]
    details = record["error"]["message"] if "error" in record else json.dumps(output, indent=1)
    folded = f"<details><summary>show</summary><pre>{html.escape(details)}</pre></details>"
    texts = "".join(f"<td>{html.escape(str(cell))}" for cell in cells)
    return f'<tr class="{record["status"]}">{texts}<td>{folded}</tr>'
