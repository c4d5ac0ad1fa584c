"""Leases: one holder at a time in a folder and in Blob Storage; a lease ends with its holder, and its loss is reported."""

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
from ml.storage import leases, stores
with leases.hold(stores.lake(), sys.argv[1], "the first holder", 0):
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


def test_waiting_too_long_fails_and_names_the_holder(lake: stores.Store, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(leases.LeaseError) as error, leases.hold(lake, NAME, "the second holder", 0.2):
        pass
    assert f"held by the first holder (process {holder.pid} on " in str(error.value)
    assert "waited 0 s" in str(error.value)


def test_a_killed_holders_lease_ends_by_itself(
    lake: stores.Store, holder: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ml.storage.leases")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with leases.hold(lake, NAME, "the second holder", 60) as lease:
        lease.check()
    if isinstance(lake, stores.AzureStore):
        assert "which is held by the first holder" in caplog.text


def test_a_released_lease_is_acquired_without_waiting(lake: stores.Store) -> None:
    for who in ("one", "two"):
        with leases.hold(lake, NAME, who, 0) as lease:
            lease.check()


def test_a_held_lease_is_renewed_beyond_its_duration(lake: stores.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 1)
    with leases.hold(lake, NAME, "one", 0) as lease:
        time.sleep(leases.LEASE_SECONDS + 2)
        lease.check()
        with pytest.raises(leases.LeaseError), leases.hold(lake, NAME, "two", 0):
            pass


@pytest.mark.parametrize("lake", ["blob"], indirect=True)
def test_a_lease_that_cannot_be_renewed_is_reported_as_lost(
    lake: stores.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(leases, "CERTAIN_SECONDS", 1)
    assert isinstance(lake, stores.AzureStore)
    with leases.hold(lake, NAME, "one", 0) as lease:
        from azure.storage.blob import BlobLeaseClient

        BlobLeaseClient(lake.client.get_blob_client(NAME)).break_lease(0)
        time.sleep(2)  # twenty refused renewals
        with pytest.raises(leases.LeaseError, match="is lost"):
            lease.check()
