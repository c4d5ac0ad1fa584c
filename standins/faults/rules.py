"""Rules for fault injection, and the routes that set them.

`POST /faults` adds a rule, `GET /faults` lists the rules with the requests that matched, `DELETE /faults` deletes all
rules, `DELETE /faults/{id}` one (a held request then continues). Rules are in memory: a restart deletes them. A rule:

    {"match": {"method": "POST", "path": "/api/2.2/jobs/runs/submit", "body": "run_key"},
     "skip": 0, "times": 1, "when": "after", "do": {"reset": true}}

`method` and `path` are regular expressions for the whole text, `body` is one for a part of it; an omitted field matches
everything. The first `skip` requests pass, the next `times` get the fault (null: all; 0: none, the rule only records).
`before`: the work is not done. `after`: the work is done and recorded, then the fault occurs: the response is lost.
`do` is one of

    {"answer": {"status": 429, "headers": {"Retry-After": "3"}, "json": {…}}}
    {"reset": true}      the connection is reset without a response
    {"wait": 2.5}        seconds
    {"hold": 600}        until the rule is deleted, the seconds have passed, or the client has disconnected
    {"run": {"how": "never ends" | "fails" | "vanishes", "seconds": 5}}      see `standins.faults.run_faults`

A request that is held `before` is dropped when its client disconnects.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from standins.core.errors import ApiError
from standins.faults.run_faults import RunFault

Json = dict[str, Any]
Address = tuple[str, int]


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Match(_Strict):
    """The requests that a rule applies to."""

    method: Pattern = ".*"
    path: Pattern = ".*"
    body: Pattern | None = None

    def fits(self, method: str, path: str, body: bytes) -> bool:
        if not re.fullmatch(self.method, method) or not re.fullmatch(self.path, path):
            return False
        return self.body is None or re.search(self.body, body.decode(errors="replace")) is not None


class Answer(_Strict):
    status: int = Field(ge=200, le=599)
    headers: dict[str, str] = {}
    content: Any = Field(None, alias="json")


class Do(_Strict):
    """The fault: exactly one of these."""

    answer: Answer | None = None
    reset: Literal[True] | None = None
    wait: float | None = Field(None, ge=0, le=3600)  # seconds
    hold: float | None = Field(None, ge=0, le=3600)  # seconds
    run: RunFault | None = None

    @model_validator(mode="after")
    def _check_exactly_one(self) -> Do:
        if len(self.model_fields_set) != 1 or self.describe() == "":
            raise ValueError("exactly one of answer, reset, wait, hold and run is needed")
        return self

    def describe(self) -> str:
        """The fault in one or two words."""
        if self.answer:
            return f"answer {self.answer.status}"
        if self.run:
            return f"run {self.run.how}"
        return next((name for name in ("reset", "wait", "hold") if getattr(self, name) is not None), "")


class Rule(_Strict):
    match: Match
    skip: int = Field(0, ge=0)
    times: int | None = Field(1, ge=0)
    when: Literal["before", "after"] = "before"
    do: Do

    @model_validator(mode="after")
    def _check_when(self) -> Rule:
        if self.do.run and self.when == "after":
            raise ValueError("a run fault applies before the run is created: when must be 'before'")
        return self


class ActiveRule:
    """A rule and the requests that matched it."""

    def __init__(self, number: int, rule: Rule) -> None:
        self.number = number
        self.rule = rule
        self.hits: list[Json] = []  # every request that matched, also those that passed
        self.acted = 0
        self.released = asyncio.Event()

    def record(self, method: str, path: str, client: Address | None, server_port: int | None) -> Json:
        """Add a request that matches: who sent it, and the port that this client is connected to."""
        hit = {
            "time": now(),
            "method": method,
            "path": path,
            "when": self.rule.when,
            "did": None,
            "state": "let through",
            "client_pid_hint": client,
            "server_port": server_port,
        }
        self.hits.append(hit)
        return hit

    @property
    def due(self) -> bool:
        """Whether the last request that matched gets the fault."""
        return len(self.hits) > self.rule.skip and (self.rule.times is None or self.acted < self.rule.times)

    def view(self) -> Json:
        rule = self.rule.model_dump(by_alias=True, exclude_unset=True)
        return {"id": self.number, "rule": rule, "count": self.acted, "hits": self.hits}


class Faults:
    """All active rules. Used only in the server's event loop, so no lock is needed."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.rules: dict[int, ActiveRule] = {}
        # port of a proxy's connection to the server → the address of its client, and the proxy's own port
        self.clients: dict[int, tuple[Address, int]] = {}
        self.transports: dict[Address, asyncio.Transport] = {}  # by the address of the peer

    def add(self, rule: Rule) -> ActiveRule:
        active = ActiveRule(next(self._numbers), rule)
        self.rules[active.number] = active
        return active

    def delete(self, number: int) -> None:
        """Delete a rule and release the request that it holds. Raises ApiError."""
        active = self.rules.pop(number, None)
        if active is None:
            raise ApiError(
                404, "NotFound", f"Fault rule {number} does not exist. Existing rules: {sorted(self.rules)}."
            )
        active.released.set()

    def clear(self) -> None:
        for number in list(self.rules):
            self.delete(number)

    def match(
        self, method: str, path: str, body: bytes, peer: Address | None, port: int | None
    ) -> tuple[ActiveRule, Json] | None:
        """The rule whose fault a request gets, and its record; other rules that match only record the request."""
        client, server_port = self.clients.get(peer[1], (peer, port)) if peer else (None, port)
        chosen = None
        for active in list(self.rules.values()):
            if not active.rule.match.fits(method, path, body):
                continue
            hit = active.record(method, path, client, server_port)
            if chosen is None and active.due:
                active.acted += 1
                hit |= {"did": active.rule.do.describe(), "state": "came"}
                chosen = active, hit
        return chosen


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def routes(faults: Faults) -> APIRouter:
    """The routes for the rules. No token is needed, as for the ledger."""
    router = APIRouter()

    @router.get("/faults")
    async def list_rules() -> Json:
        return {"value": [active.view() for active in faults.rules.values()]}

    @router.post("/faults", status_code=201)
    async def add(rule: Rule) -> Json:
        return faults.add(rule).view()

    @router.delete("/faults", status_code=204)
    async def clear() -> None:
        faults.clear()

    @router.delete("/faults/{number}", status_code=204)
    async def delete(number: int) -> None:
        faults.delete(number)

    return router
