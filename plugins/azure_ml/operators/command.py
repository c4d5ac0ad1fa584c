"""Command jobs: one command line on an Azure ML compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from azure_ml.operators.base import AzureMLJobOperator, Definition, asset_reference, shell_line


class AzureMLCommandJobOperator(AzureMLJobOperator):
    """A command job. Returns the facts that it printed last, as one JSON object in a line.

    :param command: the job's command: a shell line; or words, which are quoted, so that no value can become more than
        one word
    :param environment: name@label or name:version of the job's environment
    :param inputs: values by name, `${{inputs.<name>}}` in the command; an address as `{"type": "uri_folder", "path": …}`
    """

    template_fields: Sequence[str] = ("command", "environment", "inputs", "compute", "experiment", "conn_id")

    def __init__(
        self,
        *,
        command: str | Sequence[str],
        environment: str,
        inputs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command = command
        self.environment = environment
        self.inputs = inputs

    def definition(self) -> Definition:
        return {
            "type": "command",
            "command": shell_line(self.command),
            "environment": asset_reference(self.environment),
            "inputs": self.inputs,
            "limits": {"timeout": self.timeout},
        }
