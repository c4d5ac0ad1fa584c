"""Faults on demand: what a cloud does to its clients on a bad day, switched on route by route over HTTP.

`POST /faults` adds a rule, `GET /faults` shows every rule with what it met, `DELETE /faults` takes all away,
`DELETE /faults/{id}` one (a held request then goes on). Rules live in memory: a restart knows none. A rule:

    {"match": {"method": "POST", "path": "/api/2.2/jobs/runs/submit", "body": "run_key"},
     "skip": 0, "times": 1, "when": "after", "do": {"reset": true}}

`method` and `path` are regular expressions over the whole, `body` one that is searched for; what is left out matches
everything. The first `skip` requests go through, the next `times` meet the fault (null: all; 0: none, the rule only
records). `before`: the work is not done. `after`: it was done and recorded, and then the fault: the reply is lost.
`do` is one of

    {"answer": {"status": 429, "headers": {"Retry-After": "3"}, "json": {…}}}
    {"reset": true}      the connection is reset without an answer
    {"wait": 2.5}        seconds
    {"hold": 600}        until the rule is deleted, or these seconds are over, or the client is gone
    {"run": {"how": "never ends" | "fails" | "vanishes", "seconds": 5}}      see `standins.faults.run_faults`

A request whose client goes away while it is held `before` is not done: nobody has asked for it.
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


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Match(_Strict):
    """Which requests a rule is about."""

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
    """Exactly one of these."""

    answer: Answer | None = None
    reset: Literal[True] | None = None
    wait: float | None = Field(None, ge=0, le=3600)  # seconds
    hold: float | None = Field(None, ge=0, le=3600)  # seconds
    run: RunFault | None = None

    @model_validator(mode="after")
    def _one(self) -> Do:
        if len(self.model_fields_set) != 1 or self.told() == "":
            raise ValueError("exactly one of answer, reset, wait, hold and run is needed")
        return self

    def told(self) -> str:
        """What is done, in a word or two."""
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
    def _possible(self) -> Rule:
        if self.do.run and self.when == "after":
            raise ValueError("what becomes of a run is decided before it is asked for: when must be 'before'")
        return self


class Active:
    """A rule that is there, and what it met."""

    def __init__(self, number: int, rule: Rule) -> None:
        self.number = number
        self.rule = rule
        self.met: list[Json] = []  # every request that matched, also those that were let through
        self.acted = 0
        self.released = asyncio.Event()

    def meet(self, method: str, path: str, client: tuple[str, int] | None) -> Json:
        """Note a request that matches."""
        hit = {
            "time": now(),
            "method": method,
            "path": path,
            "when": self.rule.when,
            "did": None,
            "state": "let through",
            "client_pid_hint": client,
        }
        self.met.append(hit)
        return hit

    @property
    def due(self) -> bool:
        """Whether the request met last is one to act on."""
        return len(self.met) > self.rule.skip and (self.rule.times is None or self.acted < self.rule.times)

    def view(self) -> Json:
        rule = self.rule.model_dump(by_alias=True, exclude_unset=True)
        return {"id": self.number, "rule": rule, "count": self.acted, "hits": self.met}


class Faults:
    """The rules that are there. All of it happens in the server's event loop, so nothing is locked."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.rules: dict[int, Active] = {}
        self.clients: dict[int, tuple[str, int]] = {}  # a port of our proxy's → the client that it speaks for
        self.transports: dict[tuple[str, int], asyncio.Transport] = {}  # by the peer's address

    def add(self, rule: Rule) -> Active:
        active = Active(next(self._numbers), rule)
        self.rules[active.number] = active
        return active

    def delete(self, number: int) -> None:
        """Take a rule away. Raises ApiError."""
        active = self.rules.pop(number, None)
        if active is None:
            raise ApiError(404, "NotFound", f"There is no fault rule {number}. There are: {sorted(self.rules)}.")
        active.released.set()

    def clear(self) -> None:
        for number in list(self.rules):
            self.delete(number)

    def meet(self, method: str, path: str, body: bytes, peer: tuple[str, int] | None) -> tuple[Active, Json] | None:
        """The rule that a request meets, and the hit; every other rule that it matches notes it only."""
        client = self.clients.get(peer[1], peer) if peer else None
        chosen = None
        for active in list(self.rules.values()):
            if not active.rule.match.fits(method, path, body):
                continue
            hit = active.meet(method, path, client)
            if chosen is None and active.due:
                active.acted += 1
                hit |= {"did": active.rule.do.told(), "state": "came"}
                chosen = active, hit
        return chosen


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def routes(faults: Faults) -> APIRouter:
    """The switches. Open to whoever reaches the port, as the ledger is: tests and people on this machine."""
    router = APIRouter()

    @router.get("/faults")
    async def shown() -> Json:
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
