"""State, ledger, errors and the process itself: what every stand-in is built on."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from standins.core.cloud import Settings, SettingsError
from standins.core.database import Database
from standins.core.documents import Documents
from standins.core.ledger import Ledger
from standins.server import certificates


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "state.sqlite")


class TestDocuments:
    def test_what_is_not_there_is_none(self, database: Database) -> None:
        assert Documents(database).get("run", "1") is None

    def test_create_leaves_what_is_there(self, database: Database) -> None:
        documents = Documents(database)
        assert documents.create("run", "1", {"n": 1})
        assert not documents.create("run", "1", {"n": 2})
        assert documents.get("run", "1") == {"n": 1}

    def test_update_of_nothing_names_it(self, database: Database) -> None:
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
    def test_a_repeated_request_points_at_the_first(self, database: Database) -> None:
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


class TestCertificates:
    def test_the_authority_stays_and_a_bad_leaf_is_made_anew(self, tmp_path: Path) -> None:
        ca, leaf, key = certificates.ensure(tmp_path)
        before, leaf_before = ca.read_bytes(), leaf.read_bytes()
        assert certificates.ensure(tmp_path)[1].read_bytes() == leaf_before
        key.unlink()
        certificates.ensure(tmp_path)
        assert ca.read_bytes() == before
        assert leaf.read_bytes() != leaf_before

    def test_keys_are_for_their_owner_only(self, tmp_path: Path) -> None:
        certificates.ensure(tmp_path)
        for name in ("ca-key.pem", "server-key.pem"):
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o600

    def test_the_authority_can_sign_for_these_names_only(self, tmp_path: Path) -> None:
        ca = x509.load_pem_x509_certificate(certificates.ensure(tmp_path)[0].read_bytes())
        names = ca.extensions.get_extension_for_class(x509.NameConstraints)
        assert names.critical
        allowed = [name.value for name in names.value.permitted_subtrees or []]
        assert "management.azure.com" in allowed
        assert "pypi.org" not in allowed


class TestProcess:
    def test_health(self, bare_cloud: Any) -> None:
        with bare_cloud.http() as http:
            assert http.get("/health").json() == {"status": "ok"}

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            pytest.param("GET", "/no/such/path", id="unknown-path"),
            pytest.param("DELETE", "/health", id="unknown-method-of-a-known-path"),
            pytest.param("PROPFIND", "/health", id="unheard-of-method"),
        ],
    )
    def test_what_is_not_implemented_says_so(self, bare_cloud: Any, method: str, path: str) -> None:
        with bare_cloud.http() as http:
            answer = http.request(method, path)
        assert answer.status_code == 501
        message = f"{method} {path} is not implemented by this stand-in"
        assert answer.json() == {"error": {"code": "NotImplemented", "message": message}}

    def test_the_certificate_passes_a_strict_check(self, bare_cloud: Any) -> None:
        context = ssl.create_default_context(cafile=str(bare_cloud.ca))
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # what Python 3.13 does by default
        with (
            socket.create_connection(("127.0.0.1", bare_cloud.port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname="management.azure.com") as secure,
        ):
            assert secure.version() == "TLSv1.3"

    def test_without_the_authority_nobody_trusts_it(self, bare_cloud: Any) -> None:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{bare_cloud.url}/health", trust_env=False)

    def test_the_ledger_is_a_page_for_people(self, bare_cloud: Any) -> None:
        with bare_cloud.http() as http:
            answer = http.get("/ledger")
        assert answer.headers["content-type"].startswith("text/html")
        assert "<table>" in answer.text

    def test_sigterm_stops_everything_soon(self, standins_of: Callable[..., Any], nowhere: Any) -> None:
        cloud = standins_of(nowhere)
        idle = socket.create_connection(("127.0.0.1", cloud.proxy_port))  # an open tunnel must not hold it up
        began = time.monotonic()
        assert cloud.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 20  # an open tunnel has no end of its own
        idle.close()

    def test_a_taken_port_is_named(self, standins_of: Callable[..., Any], nowhere: Any, bare_cloud: Any) -> None:
        cloud = standins_of(nowhere)
        cloud.stop()
        cloud.port = bare_cloud.port
        with pytest.raises(RuntimeError, match=f"{bare_cloud.port} cannot be listened on"):
            cloud.start()

    def test_what_was_signed_before_a_kill_is_good_after_it(
        self, standins_of: Callable[..., Any], nowhere: Any
    ) -> None:
        cloud = standins_of(nowhere)
        token, ca = cloud.token(), cloud.ca.read_bytes()
        cloud.stop(signal.SIGKILL)
        cloud.start()
        with cloud.http() as http:
            headers = {"Authorization": f"Bearer {token}"}
            answer = http.get("/subscriptions?api-version=2022-12-01", headers=headers)
        assert answer.status_code == 200
        assert cloud.ca.read_bytes() == ca
        assert json.loads((cloud.state / "address.json").read_text())["port"] == cloud.port
