"""What all Dags have in common: which of them to build, and their arguments.

Airflow reads a Dag file for two reasons. Its Dag processor wants all Dags. The start of a task wants one, and names it
(`get_parsing_context`). Then `config/platform.yaml` is read, and the config file of that Dag's node if the Dag needs more
of it than its name; no other file. So a start costs the same with fifty models as with one. The name stays in that
process's environment, so a parse of the Dag folder that such a task started would see one Dag.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import get_parsing_context

from ml.config import ConfigError, list_names

if TYPE_CHECKING:
    from ml.config import FeatureTableConfig, ModelConfig, Project, SourceConfig

log = logging.getLogger(__name__)

T = TypeVar("T")

# A retry attaches to the remote run of the last try, so it is cheap and safe. Three cover the death of a worker, the
# restart of a service and the double start of apache/airflow #72716. The first one comes soon, because it mostly
# attaches to work that is done; later ones give a service time to recover.
RETRIES = 3
RETRY_DELAY = timedelta(seconds=3)
# Airflow computes the delay from all tries of a task, including those before a person cleared it. This limit is near
# the delay of the third retry, so a task that was cleared twice does not wait five minutes after a short outage.
MAX_RETRY_DELAY = timedelta(minutes=1)

OPERATIONS = "operations"  # the owner of what belongs to no source, feature table or model


def is_task_start() -> bool:
    """Whether Airflow reads the Dag file to start a task, and not for its Dag processor."""
    return get_parsing_context().dag_id is not None


def for_scheduler(make: Callable[[], T]) -> T | None:
    """What only the scheduler uses, such as a schedule. None at the start of a task, which saves its config and imports."""
    return None if is_task_start() else make()


def _load_usable_project() -> tuple[Project, list[str]]:
    from ml.config import load_usable_project  # with the classes of all kinds, which the start of a task does not need

    return load_usable_project()


def usable_project() -> Project:
    """All nodes that can be used, for a task that needs more than its own. What is wrong with the others is logged."""
    project, errors = _load_usable_project()
    for error in errors:
        log.warning("left out, with what is built on it: %s", error)
    return project


def project_to_build() -> Project | None:
    """All nodes that can be used, in the Dag processor. None at the start of a task.

    What only the Dag processor needs may come from it: schedules and assets that depend on other nodes. A node whose file
    is broken has no Dags, nor has what is built on it; `refuse_broken_config` shows why.
    """
    return None if is_task_start() else _load_usable_project()[0]


def sources_to_build(stage: str) -> Iterator[SourceConfig]:
    """The sources whose Dag of `stage` this process needs: all in the Dag processor, one at the start of a task."""
    project = project_to_build()
    yield from _named(stage) if project is None else project.sources.values()


def tables_to_build(stage: str) -> Iterator[FeatureTableConfig]:
    """The feature tables whose Dag of `stage` this process needs."""
    project = project_to_build()
    yield from _named(stage) if project is None else project.feature_tables.values()


def models_to_build(stage: str) -> Iterator[ModelConfig]:
    """The models whose Dag of `stage` this process needs."""
    project = project_to_build()
    yield from _named(stage) if project is None else project.models.values()


def _named(stage: str) -> Iterator[Any]:
    """The node of the Dag that a starting task belongs to, unless that Dag is of another stage."""
    dag_id = get_parsing_context().dag_id or ""
    if dag_id.endswith(f"_{stage}"):
        yield _Named(dag_id.removesuffix(f"_{stage}"))


class _Named:
    """A node at the start of a task: its name, and the keys of a model's config, each read when it is needed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, key: str) -> Any:
        from ml.config.part import load_part

        return load_part(self.name, key)


@dataclass(frozen=True)
class NodeNames:
    sources: Sequence[str]
    tables: Sequence[str]
    models: Sequence[str]


def names_to_build(dag_id: str) -> NodeNames | None:
    """The names of all nodes, for the one Dag of the whole graph. None when this process needs another Dag.

    At the start of a task they are those of all files, whether these can be used or not; none is read.
    """
    if (project := project_to_build()) is not None:
        return NodeNames(list(project.sources), list(project.feature_tables), list(project.models))
    if get_parsing_context().dag_id != dag_id:
        return None
    return NodeNames(list_names("source"), list_names("feature table"), list_names("model"))


def refuse_broken_config() -> None:
    """Raise ConfigError with all that is wrong in the config files, when the Dag processor reads the calling file.

    Airflow shows that as an import error, and schedules no Dag of that file: so the file has none.
    """
    if is_task_start():
        return
    _, errors = _load_usable_project()
    if errors:
        raise ConfigError("these config files, and what is built on them, have no Dags:\n" + "\n".join(errors))


def dag_arguments(node: SourceConfig | FeatureTableConfig | ModelConfig | None, stage: str, doc: str) -> dict[str, Any]:
    """Arguments for `DAG(…)`: id, owner, tags, retries and the runbook. `node`: None for a Dag of the whole graph."""
    owner = (
        OPERATIONS if node is None or is_task_start() else node.owner
    )  # the scheduler has what the Dag processor saw
    return {
        "dag_id": f"{node.name}_{stage}" if node else stage,
        "description": doc.strip().splitlines()[0],
        "doc_md": doc,
        "tags": [node.name, stage] if node else [stage],
        "start_date": datetime(1990, 1, 1),  # noqa: DTZ001 (the timetable's zone counts); days may be of any year
        "catchup": False,
        "default_args": {
            "owner": owner,
            "retries": RETRIES,
            "retry_delay": RETRY_DELAY,
            "retry_exponential_backoff": 3.0,  # 3, 9, 27 seconds, each spread up to its double: bad files fail soon
            "max_retry_delay": MAX_RETRY_DELAY,
            "execution_timeout": timedelta(hours=2),  # stages take minutes; one that takes hours hangs
        },
    }
