"""Leases: one holder at a time in a folder and in Blob Storage, ended by its holder's death, and told when lost."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ml.storage import leases, stores

NAME = "ops/_leases/transactions"
HOLDER = """
import sys, time
from ml import leases, store
with leases.hold(store.lake(), sys.argv[1], "the first one", 0):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(lake: stores.Store) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease."""
    del lake  # its environment is set
    process = subprocess.Popen([sys.executable, "-c", HOLDER, NAME], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_who_waits_too_long_is_told_for_whom(lake: stores.Store, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(leases.LeaseError) as error, leases.hold(lake, NAME, "the second one", 0.2):
        pass
    assert f"held by the first one (process {holder.pid} on " in str(error.value)
    assert "waited 0 s" in str(error.value)


def test_a_killed_holders_lease_ends_by_itself(
    lake: stores.Store, holder: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ml.storage.leases")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with leases.hold(lake, NAME, "the second one", 60) as lease:
        lease.check()
    if isinstance(lake, stores.AzureStore):
        assert "which is held by the first one" in caplog.text


def test_one_after_the_other_needs_no_waiting(lake: stores.Store) -> None:
    for who in ("one", "two"):
        with leases.hold(lake, NAME, who, 0) as lease:
            lease.check()


def test_a_lease_outlives_its_seconds_while_it_is_held(lake: stores.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW", 1)
    with leases.hold(lake, NAME, "one", 0) as lease:
        time.sleep(leases.SECONDS + 2)
        lease.check()
        with pytest.raises(leases.LeaseError), leases.hold(lake, NAME, "two", 0):
            pass


@pytest.mark.parametrize("lake", ["blob"], indirect=True)
def test_a_lease_that_cannot_be_renewed_is_lost_and_says_so(
    lake: stores.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW", 0.1)
    monkeypatch.setattr(leases, "SURE", 1)
    assert isinstance(lake, stores.AzureStore)
    with leases.hold(lake, NAME, "one", 0) as lease:
        from azure.storage.blob import BlobLeaseClient

        BlobLeaseClient(lake.client.get_blob_client(NAME)).break_lease(0)
        time.sleep(2)  # twenty renewals that are refused
        with pytest.raises(leases.LeaseError, match="is lost"):
            lease.check()
