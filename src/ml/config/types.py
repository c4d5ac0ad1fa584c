"""Types that the sections of a model config are built of: frozen, strict, without unknown keys."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Days = Annotated[int, Field(ge=1)]
TableName = Annotated[str, Field(pattern=r"^[a-z_]+\.[a-z][a-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]

QueryName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]  # of include/sql/<name>.sql
Column = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]

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


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
