"""Finds a machine's secrets where they must not be: in files, in databases, in what processes show."""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import psycopg2

from local.postgres import DATABASES, connect
from local.settings import Settings, load_secrets

# Identifiers, not secrets: they are in addresses and in logs, as at Azure.
NAMES = {"tenant_id", "subscription_id", "client_id"}
# Where a secret must be. Only the owner can read each of these files; another test checks that.
ALLOWED = {
    "secrets.json": "the machine's own store of secrets",
    "airflow.env": "overrides of Airflow's environment; these tests write it, only its owner reads it",
    "airflow/passwords.json": "passwords of Airflow's login manager",
    "standins/ca-key.pem": "the private key of the stand-ins' authority",
    "postgres/data": "searched through the server instead; the server's own passwords are hashed",
}
_TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}")
_SIGNED = re.compile(rb"[?&]sig=[A-Za-z0-9%+/=]{16,}")


def forms(secret: str) -> set[bytes]:
    """The spellings in which a secret may be stored."""
    content = secret.encode()
    spellings = {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        html.escape(secret),
    }
    # inside a longer text, base64 of the same bytes has three forms; each is found by its middle
    middle = {b64encode(b"x" * shift + content)[4 if shift else 0 : -4].decode() for shift in range(3)}
    return {spelling.encode() for spelling in spellings | {part for part in middle if len(part) > 12}}


class Search:
    """A search for every form of every secret, for tokens and for signed addresses."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        known = load_secrets(settings)
        self._forms = {form: name for name, secret in known.items() if name not in NAMES for form in forms(secret)}
        self._any = re.compile(b"|".join(re.escape(form) for form in sorted(self._forms, key=len, reverse=True)))

    def within(self, content: bytes, *, tokens: bool = True) -> set[str]:
        """The names of the secrets in a text, each with some of the text before it."""
        finds = {
            f"{self._forms[hit[0]]} after {content[max(0, hit.start() - 60) : hit.start()]!r}"
            for hit in self._any.finditer(content)
        }
        for pattern, what in ((_TOKEN, "a token"), (_SIGNED, "a signed address")) if tokens else ():
            finds |= {
                f"{what} after {content[max(0, hit.start() - 60) : hit.start()]!r}" for hit in pattern.finditer(content)
            }
        return finds

    def files(self) -> Iterator[tuple[str, str]]:
        """Every find in the files of the state directory."""
        for path in sorted(self.settings.run_dir.rglob("*")):
            name = path.relative_to(self.settings.run_dir).as_posix()
            if any(name == allowed or name.startswith(f"{allowed}/") for allowed in ALLOWED) or not path.is_file():
                continue
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            for what in self.within(content):
                yield name, what

    def databases(self) -> Iterator[tuple[str, str]]:
        """Every find in the rows of Airflow's and MLflow's databases."""
        for name in DATABASES:
            connection = connect(self.settings, name)
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
                for (table,) in cursor.fetchall():
                    for what in self._table(cursor, table):
                        yield f"{name}.{table}", what
            connection.close()

    def _table(self, cursor: psycopg2.extensions.cursor, table: str) -> set[str]:
        cursor.execute(psycopg2.sql.SQL("SELECT t::text FROM {} t").format(psycopg2.sql.Identifier(table)))
        return {what for (row,) in cursor.fetchall() for what in self.within((row or "").encode())}


def readable_by_others(folder: Path) -> Iterator[str]:
    """Files below a folder that any user of the machine can reach and read."""
    for path in folder.iterdir():
        mode = path.lstat().st_mode
        if path.is_symlink():
            continue
        if path.is_dir():
            if mode & 0o001:
                yield from readable_by_others(path)
        elif mode & 0o004:
            yield path.name
