"""Documents, ledger and settings: the base of every stand-in."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from standins.core.cloud import Settings, SettingsError
from standins.core.database import Database
from standins.core.documents import Documents
from standins.core.ledger import Ledger


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "state.sqlite")


class TestDocuments:
    def test_a_missing_document_is_none(self, database: Database) -> None:
        assert Documents(database).get("run", "1") is None

    def test_create_does_not_change_an_existing_document(self, database: Database) -> None:
        documents = Documents(database)
        assert documents.create("run", "1", {"n": 1})
        assert not documents.create("run", "1", {"n": 2})
        assert documents.get("run", "1") == {"n": 1}

    def test_update_of_a_missing_document_names_it(self, database: Database) -> None:
        with pytest.raises(KeyError, match="no run 7"):
            Documents(database).update("run", "7", lambda doc: doc)

    def test_update_that_raises_changes_nothing(self, database: Database) -> None:
        documents = Documents(database)
        documents.put("run", "1", {"n": 1})
        with pytest.raises(ZeroDivisionError):
            documents.update("run", "1", lambda doc: {"n": doc["n"] / 0})
        assert documents.get("run", "1") == {"n": 1}

    def test_list_keeps_the_order_of_creation(self, database: Database) -> None:
        documents = Documents(database)
        for name in ("b", "a", "c"):
            documents.put("run", name, {})
        documents.put("run", "b", {"again": True})
        assert [name for name, _ in documents.list("run")] == ["b", "a", "c"]

    def test_updates_of_many_threads_all_count(self, database: Database) -> None:
        documents = Documents(database)
        documents.put("run", "1", {"n": 0})

        def add() -> None:
            for _ in range(25):
                documents.update("run", "1", lambda doc: {"n": doc["n"] + 1})

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert documents.get("run", "1") == {"n": 100}

    def test_a_transaction_is_all_or_nothing(self, database: Database) -> None:
        documents, ledger = Documents(database), Ledger(database)

        def die_in_the_middle() -> None:
            with database.transaction():
                documents.put("run", "1", {})
                ledger.record("s", "o", "x", None, "1", {})
                raise RuntimeError("died")

        with pytest.raises(RuntimeError, match="died"):
            die_in_the_middle()
        assert documents.list("run") == []
        assert ledger.entries() == []


class TestLedger:
    def test_a_repeated_request_refers_to_the_first(self, database: Database) -> None:
        ledger = Ledger(database)
        first = ledger.record("databricks", "submit", "features", "k1", "r1", {"a": 1}, asked_by="c")
        again = ledger.record("databricks", "submit", "features", "k1", "r1", {"a": 1}, first=first)
        ledger.finish(first, "SUCCESS", "done")
        effects = [entry for entry in ledger.entries(run_key="k1") if entry.first is None]
        repeated = ledger.entries()[1]
        assert [(e.id, e.outcome, e.asked_by) for e in effects] == [(first, "SUCCESS", "c")]
        assert (repeated.id, repeated.outcome, repeated.first) == (again, "already asked", first)

    def test_only_the_first_outcome_counts(self, database: Database) -> None:
        ledger = Ledger(database)
        entry = ledger.record("s", "o", "x", None, "1", None)
        ledger.finish(entry, "Succeeded")
        ledger.finish(entry, "Failed")
        assert ledger.entries()[0].outcome == "Succeeded"

    def test_entries_of_one_service(self, database: Database) -> None:
        ledger = Ledger(database)
        ledger.record("a", "o", "x", "k", "1", None)
        ledger.record("b", "o", "x", "k", "2", None)
        assert [entry.remote_id for entry in ledger.entries(service="b", run_key="k")] == ["2"]


class TestSettings:
    def test_every_missing_variable_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"STANDINS_CLIENT_SECRET.*AZURE_STORAGE_QUEUE_ENDPOINT"):
            Settings.from_environment(tmp_path, 1, 2, {"STANDINS_TENANT_ID": "t"})
