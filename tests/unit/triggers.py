"""Triggers, driven as the triggerer does it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from airflow.sdk.module_loading import import_string
from airflow.triggers.base import BaseTrigger, TriggerEvent


def rebuilt(trigger: BaseTrigger) -> Any:
    """The trigger as another process makes it: from its class path and its arguments, which were stored as JSON."""
    path, kwargs = trigger.serialize()
    return import_string(path)(**json.loads(json.dumps(kwargs)))


def events_of(trigger: BaseTrigger, seconds: float = 60) -> list[TriggerEvent]:
    """Every event the trigger fires until it ends. Raises TimeoutError when that takes longer."""

    async def watch() -> list[TriggerEvent]:
        return [event async for event in trigger.run()]

    return asyncio.run(asyncio.wait_for(watch(), seconds))
