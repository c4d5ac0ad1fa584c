"""Azure ML jobs: asked for by name, once; moved on as they run; taken up again after a restart.

`_advance` is the only place that moves a command job on, as in `standins.databricks.runs`. Jobs of the other types
have children, and are moved on by a follower each (`standins.azure_ml.followers`).
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping

from standins.azure_ml import command_job
from standins.azure_ml.api import Json, Workspace, not_found, stamp, user_error
from standins.azure_ml.followers import Follower, JobType
from standins.azure_ml.job import DONE, UPDATABLE, fixed_part, key_of, new_job, outcome, workspace_of
from standins.compute.pool import Compute
from standins.compute.run import LOG
from standins.core.auth import Claims
from standins.core.cloud import Cloud
from standins.core.documents import Document
from standins.core.errors import ApiError, NotImplementedHere
from standins.faults import run_faults

SERVICE = "azure_ml"
ALL = "azure_ml.job"  # every job of every workspace, by its id

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_COMMAND = "Command"


class Jobs:
    """All jobs of all workspaces. Use `cloud.one(jobs_of)`."""

    def __init__(self, cloud: Cloud, compute: Compute, parents: Mapping[str, JobType]) -> None:
        self._cloud = cloud
        self._parents = parents
        self._documents = cloud.documents
        self._compute = compute
        self._lock = threading.Lock()
        self._active = {name for name, job in self._documents.list(ALL) if job["status"] not in DONE}

    def start(self) -> None:
        """Follow the jobs that were active when the process ended, and all new ones."""
        self._compute.listeners.append(self.advance_all)
        self._compute.start()
        for key in sorted(self._active):
            if (job := self.find(key)) is not None:
                self._follow(key, job["asked"]["jobType"])

    def put(self, workspace: Workspace, name: str, asked: Json, claims: Claims) -> tuple[Document, bool]:
        """Start a job, or update one's description, display name, tags, properties and archival.

        Gives the job and whether it is new. Raises ApiError: for what cannot run, and for a name that
        belongs to a job that is otherwise another one.
        """
        kind = asked.get("jobType")
        if kind != _COMMAND and kind not in self._parents:
            raise NotImplementedHere(f"A job of type {kind!r}")
        if not _NAME.fullmatch(name):
            raise user_error(f"Job name {name!r}: letters, digits, '_', '-' and '.' are allowed, 255 at most.")
        if self._documents.get(ALL, key_of(workspace, name)) is None:
            (self._parents.get(kind or "") or command_job).check(self._cloud, workspace, asked)
        tags = asked.get("tags") or {}
        run_key = tags.get("run_key") or name
        subject = f"{workspace.name}/{asked.get('experimentName') or 'Default'}"
        with self._cloud.transaction():
            earlier = self._documents.get(ALL, key_of(workspace, name))
            if earlier is not None:
                return self._update(
                    earlier, asked, lambda: self._again(earlier, subject, run_key, asked, claims)
                ), False
            entry = self._cloud.ledger.record(
                SERVICE, "create job", subject, run_key, name, asked, asked_by=claims.get("appid")
            )
            job = {**new_job(workspace, name, asked, stamp(claims)), "entry": entry, **run_faults.noted()}
            self._documents.create(ALL, key_of(workspace, name), job)
        self._begin(job)
        return self.get(workspace, name), True

    def add_child(self, parent: Document, name: str, asked: Json, **more: object) -> Document:
        """A job that a job starts itself; once, so that a parent which was interrupted may add it again.

        `more` are fields of its document, for a child that is only told of: `status`, `started`, `ended`, `error`.
        """
        with self._cloud.transaction():
            known = self.find(key_of(workspace_of(parent), name))
            if known is not None:
                return known
            child = {
                **new_job(workspace_of(parent), name, asked, parent["systemData"]),
                "parent": parent["name"],
                **more,
            }
            self._documents.create(ALL, key_of(workspace_of(parent), name), child)
            held = self.find(key_of(workspace_of(parent), parent["name"])) or parent
            self.change(parent, children=[*held.get("children", []), name])
        if not self.is_over(child):
            self._begin(child)
        return child

    def children(self, job: Document) -> list[Document]:
        """The jobs that a job has started, oldest first, as they are now."""
        held = self.find(key_of(workspace_of(job), job["name"])) or job
        found = (self.find(key_of(workspace_of(job), name)) for name in held.get("children", []))
        return [child for child in found if child is not None]

    def find(self, key: str) -> Document | None:
        return self._documents.get(ALL, key)

    def is_over(self, job: Document) -> bool:
        return job["status"] in DONE

    def change(self, job: Document, **fields: object) -> Document:
        """Write fields of a job's document; the document as it is then."""
        return self._documents.update(ALL, key_of(workspace_of(job), job["name"]), lambda found: {**found, **fields})

    def tell(self, job: Document, tags: Json | None = None, properties: Json | None = None) -> None:
        """Add to the tags and properties that a job shows of itself. Values are text, as on the service."""

        def add(found: Document) -> Document:
            told = found.get("found") or {}
            new = {"tags": tags or {}, "properties": properties or {}}
            return {**found, "found": {part: {**told.get(part, {}), **new[part]} for part in new}}

        self._documents.update(ALL, key_of(workspace_of(job), job["name"]), add)

    def note(self, job: Document, line: str) -> None:
        """Add a line to the log of a job that has no process of its own."""
        folder = self._compute.folder / job["run"]
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (folder / LOG).open("a") as log:
            log.write(f"{time.strftime('%H:%M:%S', time.gmtime())} {line}\n")

    def finish(self, job: Document, status: str, error: str | None = None) -> None:
        """The end of a job that has no process of its own. Only the first word counts."""
        key = key_of(workspace_of(job), job["name"])
        with self._cloud.transaction():
            found = self.find(key)
            if found is None or self.is_over(found):
                return
            self._end(found, status, error)
            self._documents.put(ALL, key, found)

    def stop(self, job: Document, why: str) -> None:
        """Cancel a job for a reason that it is to tell."""
        self.change(job, why=why)
        self.cancel(workspace_of(job), job["name"])

    def get(self, workspace: Workspace, name: str) -> Document:
        """A job. Raises ApiError."""
        job = self._documents.get(ALL, key_of(workspace, name))
        if job is None:
            raise not_found(f"Job {name}")
        return job

    def within(self, workspace: Workspace) -> list[Document]:
        """The jobs that were asked for in a workspace, newest first; their children are not among them."""
        place = key_of(workspace, "")
        found = reversed(self._documents.list(ALL))
        return [job for key, job in found if key.startswith(place) and not job.get("parent")]

    def by_secret(self, secret: str) -> Document:
        """The job whose log's address has this part. Raises ApiError."""
        for _, job in self._documents.list(ALL):
            if secrets.compare_digest(job["secret"], secret):
                return job
        raise not_found("Log")

    def cancel(self, workspace: Workspace, name: str) -> None:
        """End a job. One that has ended stays as it is. Raises ApiError."""
        self.get(workspace, name)

        def mark(job: Document) -> Document:
            return job if job["status"] in DONE else {**job, "stop": True, "status": "CancelRequested"}

        self._documents.update(ALL, key_of(workspace, name), mark)
        self._advance(key_of(workspace, name))

    def describe(self, workspace: Workspace, name: str, changes: Json) -> None:
        """Change what people wrote about a job. Raises ApiError."""
        self.get(workspace, name)
        kept = {field: changes[field] for field in UPDATABLE if changes.get(field) is not None}

        def change(job: Document) -> Document:
            return {**job, "asked": {**job["asked"], **kept}}

        self._documents.update(ALL, key_of(workspace, name), change)

    def delete(self, workspace: Workspace, name: str) -> None:
        """Forget a job that has ended. Raises ApiError."""
        job = self.get(workspace, name)
        if job["status"] not in DONE:
            raise user_error(f"Job {name} is {job['status']}; only a job that has ended can be deleted.")
        for each in (*self.children(job), job):
            self._documents.delete(ALL, key_of(workspace, each["name"]))
            self._compute.delete(each["run"])

    def log(self, job: Document) -> bytes:
        """What a job has printed so far."""
        return self._compute.output(job["run"])

    def advance_all(self) -> None:
        """Move every active job on as far as it can go now."""
        with self._lock:
            active = list(self._active)
        for name in active:
            self._advance(name)

    def _begin(self, job: Document) -> None:
        key = key_of(workspace_of(job), job["name"])
        with self._lock:
            self._active.add(key)
        self._advance(key)
        self._follow(key, job["asked"]["jobType"])

    def _follow(self, key: str, kind: str) -> None:
        if kind in self._parents:
            self._cloud.background(f"job {key}", Follower(self._cloud, self, self._parents[kind], key).run)

    def _update(self, earlier: Document, asked: Json, note: Callable[[], None]) -> Document:
        if fixed_part(earlier["asked"]) != fixed_part(asked):
            raise user_error(
                "A job with this name already exists. If you are trying to submit a new job, use a different name. If you "
                "are trying to update an existing job, only description, displayName, tags, properties and isArchived can "
                "be updated."
            )
        note()
        changes = {field: asked[field] for field in UPDATABLE if asked.get(field) is not None}
        job = {**earlier, "asked": {**earlier["asked"], **changes}}
        self._documents.put(ALL, key_of(workspace_of(earlier), earlier["name"]), job)
        return job

    def _again(self, earlier: Document, subject: str, run_key: str, asked: Json, claims: Claims) -> None:
        self._cloud.ledger.record(
            SERVICE, "create job", subject, run_key, earlier["name"], asked, asked_by=claims.get("appid"),
            first=earlier["entry"],
        )  # fmt: skip

    def _advance(self, key: str) -> None:
        actions: list[Callable[[], None]] = []
        with self._cloud.transaction():
            job = self._documents.get(ALL, key)
            if job is not None and job["status"] not in DONE:
                before = repr(job)
                self._move(job, actions)
                if job.get("vanished"):
                    self._documents.delete(ALL, key)
                elif repr(job) != before:
                    self._documents.put(ALL, key, job)
        if job is None or job["status"] in DONE:
            with self._lock:
                self._active.discard(key)
        for act in actions:  # after the commit; what is not done because the process dies is found again
            act()

    def _move(self, job: Document, actions: list[Callable[[], None]]) -> None:
        if job.get("fault"):
            self._meet_its_fate(job)
            return
        if job["asked"]["jobType"] != _COMMAND:
            return
        status = self._compute.status(job["run"])
        if status is None:
            if job["stop"]:
                self._end(job, "Canceled", job.get("why"))
                return
            try:
                wanted = command_job.work(self._cloud, workspace_of(job), job["name"], job["run"], job["asked"])
            except ApiError as error:  # an asset or datastore that was there when the job was asked for
                self._end(job, "Failed", error.message)
                return
            job["status"] = "Starting"
            actions.append(lambda: self._compute.submit(job["run"], wanted))
        elif status.state == "ended":
            job["started"], job["ended"] = status.started_at, status.ended_at
            how, why = outcome(status, command_job.timeout(job["asked"]))
            self._end(job, how, job.get("why") if how == "Canceled" and not why else why)
        elif job["stop"]:
            actions.append(lambda: self._compute.stop(job["run"]))
        elif status.state == "queued":
            job["status"] = "Queued"
        else:
            job["status"], job["started"] = "Running", status.started_at

    def _meet_its_fate(self, job: Document) -> None:
        """Move a job on that does nothing: it is going on, then it is cancelled, fails or is gone."""
        fate = run_faults.state(job)
        if job["stop"]:
            self._end(job, "Canceled", None)
        elif fate == "in progress":
            job["status"], job["started"] = "Running", job["started"] or time.time()
        elif fate == "fails":
            self._end(job, "Failed", run_faults.MESSAGE)
        else:
            job["vanished"] = True
            self._end(job, "Canceled", "it vanished")

    def _end(self, job: Document, status: str, error: str | None) -> None:
        job["status"], job["error"] = status, error
        job["ended"] = job["ended"] or time.time()
        if job["entry"] is not None:
            self._cloud.ledger.finish(job["entry"], status, error or "")
