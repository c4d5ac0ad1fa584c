"""Finding a machine's secrets where they must not be: in files, in databases, in what processes show."""

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

# Names, not secrets: they stand in addresses and in logs, as they do at Azure.
NAMES = {"tenant_id", "subscription_id", "client_id"}
# Where a secret must be; each of these can be read by its owner only, which another test looks at.
KEPT = {
    "secrets.json": "the machine's own store of them",
    "airflow.env": "what Airflow is told another way; these tests write it, its owner alone reads it",
    "airflow/passwords.json": "of Airflow's login manager",
    "standins/ca-key.pem": "a key of its own",
    "postgres/data": "read through the server instead; its own passwords are hashed",
}
_TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}")
_SIGNED = re.compile(rb"[?&]sig=[A-Za-z0-9%+/=]{16,}")


def forms(secret: str) -> set[bytes]:
    """A secret as it may be written down."""
    text = secret.encode()
    written = {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        html.escape(secret),
    }
    # inside something longer, base64 of the same bytes has three forms; their common middle tells each
    middle = {b64encode(b"x" * shift + text)[4 if shift else 0 : -4].decode() for shift in range(3)}
    return {one.encode() for one in written | {one for one in middle if len(one) > 12}}


class Search:
    """What is looked for: every form of every secret, tokens and signed addresses."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        known = load_secrets(settings)
        self._forms = {form: name for name, secret in known.items() if name not in NAMES for form in forms(secret)}
        self._any = re.compile(b"|".join(re.escape(form) for form in sorted(self._forms, key=len, reverse=True)))

    def within(self, content: bytes, *, tokens: bool = True) -> set[str]:
        """The names of what was found in a text, with some of what is before it."""
        found = {
            f"{self._forms[hit[0]]} after {content[max(0, hit.start() - 60) : hit.start()]!r}"
            for hit in self._any.finditer(content)
        }
        for pattern, what in ((_TOKEN, "a token"), (_SIGNED, "a signed address")) if tokens else ():
            found |= {
                f"{what} after {content[max(0, hit.start() - 60) : hit.start()]!r}" for hit in pattern.finditer(content)
            }
        return found

    def files(self) -> Iterator[tuple[str, str]]:
        """Every find in the files of the state directory."""
        for path in sorted(self.settings.run_dir.rglob("*")):
            name = path.relative_to(self.settings.run_dir).as_posix()
            if any(name == kept or name.startswith(f"{kept}/") for kept in KEPT) or not path.is_file():
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
