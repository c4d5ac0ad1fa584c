"""Types that config files are built of: frozen, strict, without unknown keys."""

from __future__ import annotations

import re
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Days = Annotated[int, Field(ge=1)]
TableName = Annotated[str, Field(pattern=r"^[a-z_]+\.[a-z][a-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]

NAME = r"[a-z][a-z0-9_]{0,49}"
Name = Annotated[str, Field(pattern=rf"^{NAME}$")]  # of a source, a feature table or a model
QueryName = Annotated[str, Field(pattern=rf"^{NAME}(/{NAME})?$")]  # of include/sql/<name>.sql
Column = Annotated[str, Field(pattern=rf"^{NAME}$")]
Settings = dict[Column, int | float | str | bool]  # parameters of a query, `:name` in its text

_CRON_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
)


def _check_cron(text: str) -> str:
    """Check a schedule here: Airflow would find a bad one only while it parses the Dags, without the key's name."""
    fields = text.split()
    if len(fields) != len(_CRON_FIELDS):
        raise ValueError('a cron expression of five fields is needed, such as "0 6 * * *"')
    for field, (name, least, most) in zip(fields, _CRON_FIELDS, strict=True):
        for item in field.split(","):
            match = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/[1-9]\d*)?", item, re.ASCII)
            if not match or not all(least <= int(number) <= most for number in match.groups() if number):
                raise ValueError(
                    f"the cron expression's {name} is {field!r}; numbers from {least} to {most} are allowed"
                )
    return text


Cron = Annotated[str, AfterValidator(_check_cron)]


def _check_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError("not a time zone of the IANA database, such as Europe/London") from error
    return name


TimeZone = Annotated[str, AfterValidator(_check_timezone)]


class Frozen(BaseModel):
    # each start of a task imports these classes and uses few of them: their validators are built at the first use
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)
