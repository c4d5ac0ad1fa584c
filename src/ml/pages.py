"""The HTML frame of every page for people: one self-contained file, without scripts and without external content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

BLUE, GREY, INK = "#2563ab", "#9aa5b1", "#1c2430"  # this model or day; the reference; text

STYLE = """
:root{--ink:#1c2430;--soft:#5b6675;--line:#e3e7ec;--paper:#fff;--ground:#f5f7f9;--blue:#2563ab;--grey:#9aa5b1;
--good:#1d7f4e;--bad:#b3372c;--warn:#fff6e0}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI",Roboto,sans-serif}
main{max-width:1060px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:26px;line-height:1.2;margin:0 0 4px}h2{font-size:17px;margin:36px 0 10px}
p{margin:6px 0}.soft{color:var(--soft)}small,.small{font-size:13px}
section,.tile{background:var(--paper);border:1px solid var(--line);border-radius:8px;padding:16px 18px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(180px,1fr));gap:12px;margin:20px 0}
.tile b{display:block;font-size:26px;line-height:1.25;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:6px 10px;border-bottom:1px solid var(--line);vertical-align:top}
th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:600;font-size:13px}
tr:last-child td{border-bottom:0}
.good{color:var(--good)}.bad{color:var(--bad)}
.note{background:var(--warn);border:1px solid #f0dca6;border-radius:8px;padding:10px 18px;margin:16px 0}
.bar{display:grid;grid-template-columns:190px 1fr 74px;gap:10px;align-items:center;margin:3px 0}
.bar span:last-child{text-align:right;font-variant-numeric:tabular-nums}
.track{background:var(--ground);border-radius:3px;height:14px;position:relative;overflow:hidden}
.fill{background:var(--blue);height:100%;border-radius:3px}.fill.over{background:var(--bad)}
.mark{position:absolute;top:0;bottom:0;width:2px;background:var(--ink)}
.two{display:grid;grid-template-columns:3fr 2fr;gap:16px}
@media(max-width:760px){.two{grid-template-columns:1fr}}
svg{max-width:100%;height:auto;display:block}
"""


def page(title: str, lead: str, body: Iterable[str]) -> bytes:
    """A whole page; `title` and `lead` are text, `body` is HTML."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>'
        f'<body><main><h1>{escape(title)}</h1><p class="soft">{escape(lead)}</p>{"".join(body)}</main></body></html>'
    ).encode()


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """Large figures; each entry is label, figure, and a line below, all as text."""
    return '<div class="tiles">{}</div>'.format(
        "".join(
            f'<div class="tile"><span class="soft small">{escape(label)}</span><b>{escape(figure)}</b>'
            f'<span class="soft small">{escape(below)}</span></div>'
            for label, figure, below in entries
        )
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; `head` is text, cells are HTML."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>"


def notes(lines: Sequence[str]) -> str:
    """A box with what the reader must know first; "" without lines."""
    return '<div class="note">{}</div>'.format("".join(f"<p>{escape(line)}</p>" for line in lines)) if lines else ""


def bar(name: str, share: float, text: str, *, over: bool = False, mark: float | None = None) -> str:
    """One horizontal bar; `share` and `mark` are fractions of the whole width, 0 to 1."""
    marker = f'<div class="mark" style="left:{min(mark, 1):.1%}"></div>' if mark is not None else ""
    return (
        f'<div class="bar"><span>{escape(name)}</span><div class="track">'
        f'<div class="fill{" over" if over else ""}" style="width:{min(share, 1):.1%}"></div>{marker}</div>'
        f"<span>{escape(text)}</span></div>"
    )
