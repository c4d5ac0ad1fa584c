"""Checks of Data Factory's JSON. What is not supported is refused on creation, not ignored.

Each check raises ApiError: 400 for what the service itself refuses, 501 for what the service supports and the
stand-in does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from standins.core.errors import ApiError, NotImplementedHere
from standins.data_factory import expressions
from standins.data_factory.copy.formats import READERS

Json = dict[str, Any]

# Linked service and dataset types, with the type properties that are read or can be ignored safely.
_LINKED_SERVICES = {
    "AzureBlobStorage": {"serviceEndpoint", "accountKind", "connectionString", "credential", "tenant", "sasUri"},
    "AzureDatabricksDeltaLake": {"domain", "clusterId", "accessToken", "workspaceResourceId", "credential"},
}
_DATASETS = {
    "DelimitedText": {
        "location", "columnDelimiter", "rowDelimiter", "quoteChar", "escapeChar", "firstRowAsHeader", "nullValue",
        "encodingName",
    },
    "Json": {"location", "encodingName"},
    "Parquet": {"location", "compressionCodec"},
    "AzureDatabricksDeltaLakeDataset": {"database", "table"},
}  # fmt: skip
_SOURCES = {"DelimitedTextSource": "DelimitedText", "JsonSource": "Json", "ParquetSource": "Parquet"}
_SINKS = {"ParquetSink": "Parquet", "AzureDatabricksDeltaLakeSink": "AzureDatabricksDeltaLakeDataset"}
_READ_SETTINGS = {
    "DelimitedTextSource": "DelimitedTextReadSettings",
    "JsonSource": "JsonReadSettings",
    "ParquetSource": "ParquetReadSettings",
}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "securestring": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "array": (list,),
    "object": (dict,),
}
_CONDITIONS = {"Succeeded", "Failed", "Skipped", "Completed"}


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def linked_service(properties: Json) -> None:
    kind = _checked_type(properties, "linked service", _LINKED_SERVICES)
    known = {"type", "typeProperties", "annotations", "description", "connectVia", "version"}
    _check_keys(properties, known, "linked service property")
    _check_keys(properties.get("typeProperties", {}), _LINKED_SERVICES[kind], f"{kind} property")


def dataset(properties: Json) -> None:
    kind = _checked_type(properties, "dataset", _DATASETS)
    known = {
        "type",
        "typeProperties",
        "linkedServiceName",
        "parameters",
        "annotations",
        "schema",
        "folder",
        "description",
    }
    _check_keys(properties, known, "dataset property")
    _check_parameters(properties)
    inner = properties.get("typeProperties", {})
    _check_keys(inner, _DATASETS[kind], f"{kind} property")
    if kind == "AzureDatabricksDeltaLakeDataset":
        _check_required(inner, ("database", "table"), kind)
    else:
        location = inner.get("location") or {}
        _checked_type(location, "location", {"AzureBlobStorageLocation"})
        _check_keys(location, {"type", "container", "folderPath", "fileName"}, "location property")
        _check_required(location, ("container",), "location")
        if inner.get("rowDelimiter") not in (None, "\n", "\r", "\r\n"):
            raise NotImplementedHere(f"The rowDelimiter {inner['rowDelimiter']!r}")
        if inner.get("compressionCodec") not in (None, "snappy"):
            raise NotImplementedHere(f"The compressionCodec {inner['compressionCodec']!r}")
    _check_expressions(inner, "dataset", set(properties.get("parameters", {})))


def pipeline(properties: Json) -> None:
    known = {"activities", "parameters", "annotations", "folder", "description", "policy", "lastPublishTime"}
    _check_keys(properties, known, "pipeline property")
    if properties.get("policy"):
        raise NotImplementedHere("The pipeline property 'policy'")
    _check_parameters(properties)
    activities = properties.get("activities", [])
    names = [activity.get("name") for activity in activities]
    if len(set(names)) < len(names) or not all(names):
        raise bad_request(f"Activity names must be given and unique; found {names}.")
    for activity in activities:
        _check_activity(activity, names)
        _check_expressions(activity, "pipeline", set(properties.get("parameters", {})))
    _check_no_circle(activities)


def references(value: Any) -> Iterator[tuple[str, str]]:
    """Every ("DatasetReference", name) and ("LinkedServiceReference", name) in `value`."""
    if isinstance(value, dict):
        if isinstance(value.get("referenceName"), str):
            yield str(value.get("type")), value["referenceName"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def parameter_values(declared: Json, arguments: Json) -> Json:
    """The values of declared parameters: the arguments, otherwise defaults. Raises ApiError that names the parameter."""
    unknown = sorted(set(arguments) - set(declared))
    if unknown:
        raise bad_request(
            "ErrorCode=InvalidTemplate, ErrorMessage=The following parameters were supplied, but do not correspond to "
            f"any parameters defined in the pipeline: '{', '.join(unknown)}'. Defined: '{', '.join(declared)}'."
        )
    values: Json = {}
    for name, definition in declared.items():
        if name not in arguments and "defaultValue" not in definition:
            raise bad_request(
                f"ErrorCode=InvalidTemplate, ErrorMessage=The value for the pipeline parameter '{name}' is not provided."
            )
        value = arguments.get(name, definition.get("defaultValue"))
        types = _TYPES[str(definition["type"]).lower()]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise bad_request(
                f"ErrorCode=InvalidTemplate, ErrorMessage=The provided value for the pipeline parameter '{name}' is "
                f"not valid. Expected a value of type '{definition['type']}', but received a value of type "
                f"'{type(value).__name__}'."
            )
        values[name] = value
    return values


def _check_activity(activity: Json, names: list[str]) -> None:
    kind = _checked_type(activity, "activity", {"Copy", "Wait"})
    known = {
        "name", "type", "typeProperties", "dependsOn", "userProperties", "description", "policy", "inputs", "outputs",
    }  # fmt: skip
    _check_keys(activity, known, f"{kind} activity property")
    policy = activity.get("policy", {})
    _check_keys(
        policy, {"timeout", "retry", "retryIntervalInSeconds", "secureInput", "secureOutput"}, "activity policy"
    )
    for name, default in (("retry", 0), ("secureInput", False), ("secureOutput", False)):
        if policy.get(name, default) != default:
            raise NotImplementedHere(f"The activity policy {name}={policy[name]!r}")
    for dependency in activity.get("dependsOn", []):
        if dependency.get("activity") not in names:
            raise bad_request(
                f"The activity '{activity['name']}' depends on '{dependency.get('activity')}', which the pipeline does "
                f"not have. It has: {', '.join(names)}."
            )
        unknown = set(dependency.get("dependencyConditions", [])) - _CONDITIONS
        if unknown:
            raise bad_request(f"Unknown dependency conditions: {', '.join(sorted(unknown))}.")
    inner = activity.get("typeProperties", {})
    if kind == "Wait":
        _check_keys(inner, {"waitTimeInSeconds"}, "Wait property")
        _check_required(inner, ("waitTimeInSeconds",), "Wait")
    else:
        _check_copy(activity, inner)


def _check_copy(activity: Json, inner: Json) -> None:
    for side in ("inputs", "outputs"):
        if len(activity.get(side, [])) != 1:
            raise bad_request(f"The Copy activity '{activity['name']}' must have exactly one of {side}.")
    known = {
        "source", "sink", "enableStaging", "enableSkipIncompatibleRow", "logSettings", "translator", "parallelCopies",
        "dataIntegrationUnits",
    }  # fmt: skip
    _check_keys(inner, known, "Copy property")
    if inner.get("enableStaging"):
        raise NotImplementedHere("The Copy property 'enableStaging'")
    _check_keys(
        inner.get("translator", {}), {"type", "typeConversion", "typeConversionSettings"}, "translator property"
    )
    _check_copy_source(inner.get("source") or {})
    _check_copy_sink(inner.get("sink") or {})
    if log := inner.get("logSettings"):
        _check_keys(log, {"enableCopyActivityLog", "copyActivityLogSettings", "logLocationSettings"}, "log setting")
        location = log.get("logLocationSettings", {})
        _check_keys(location, {"linkedServiceName", "path"}, "log location")
        _check_required(location, ("linkedServiceName", "path"), "logLocationSettings")
        level = log.get("copyActivityLogSettings", {}).get("logLevel", "Warning")
        if level != "Warning" or not log.get("enableCopyActivityLog", True):
            raise NotImplementedHere("A copy activity log other than of warnings")


def _check_copy_source(source: Json) -> None:
    kind = _checked_type(source, "copy source", _SOURCES)
    _check_keys(source, {"type", "storeSettings", "formatSettings", "additionalColumns"}, f"{kind} property")
    store = source.get("storeSettings", {})
    if store:
        _checked_type(store, "store settings", {"AzureBlobStorageReadSettings"})
    known = {
        "type", "recursive", "wildcardFolderPath", "wildcardFileName", "enablePartitionDiscovery",
        "maxConcurrentConnections",
    }  # fmt: skip
    _check_keys(store, known, "store setting")
    if store.get("enablePartitionDiscovery"):
        raise NotImplementedHere("The store setting 'enablePartitionDiscovery'")
    settings = source.get("formatSettings", {})
    if settings:
        _checked_type(settings, "format settings", {_READ_SETTINGS[kind]})
    _check_keys(settings, {"type", "skipLineCount"}, "format setting")
    if settings.get("skipLineCount"):
        raise NotImplementedHere("The format setting 'skipLineCount'")
    for column in source.get("additionalColumns", []):
        _check_required(column, ("name", "value"), "additional column")
        if str(column["value"]).startswith("$$") and column["value"] != "$$FILEPATH":
            raise NotImplementedHere(f"The additional column value {column['value']!r}")


def _check_copy_sink(sink: Json) -> None:
    kind = _checked_type(sink, "copy sink", _SINKS)
    _check_keys(sink, {"type", "storeSettings", "formatSettings"}, f"{kind} property")
    store, settings = sink.get("storeSettings", {}), sink.get("formatSettings", {})
    _check_keys(store, {"type", "copyBehavior", "maxConcurrentConnections"}, "store setting")
    if store:
        _checked_type(store, "store settings", {"AzureBlobStorageWriteSettings"})
    if store.get("copyBehavior", "PreserveHierarchy") != "PreserveHierarchy":
        raise NotImplementedHere(f"The copyBehavior {store['copyBehavior']!r}")
    _check_keys(settings, {"type"}, "format setting")


def copy_sides(activity: Json, source_dataset: Json, sink_dataset: Json) -> None:
    """Check that a Copy activity's source and sink match the types of their datasets."""
    inner = activity["typeProperties"]
    pairs = ((inner["source"], source_dataset, _SOURCES), (inner["sink"], sink_dataset, _SINKS))
    for side, side_dataset, types in pairs:
        if side_dataset["type"] != types[side["type"]]:
            raise bad_request(
                f"The activity '{activity['name']}' has {side['type']} with a dataset of type {side_dataset['type']}; "
                f"{types[side['type']]} is needed."
            )
    if source_dataset["type"] not in READERS:
        raise NotImplementedHere(f"A source of type {source_dataset['type']}")
    if sink_dataset["typeProperties"].get("location", {}).get("fileName"):
        raise NotImplementedHere("A sink dataset with a fileName")


def _check_no_circle(activities: list[Json]) -> None:
    waiting = {a["name"]: {d["activity"] for d in a.get("dependsOn", [])} for a in activities}
    while free := [name for name, required in waiting.items() if not required & waiting.keys()]:
        for name in free:
            del waiting[name]
    if waiting:
        raise bad_request(f"These activities wait for each other: {', '.join(sorted(waiting))}.")


def _check_parameters(properties: Json) -> None:
    for name, definition in properties.get("parameters", {}).items():
        if str(definition.get("type", "")).lower() not in _TYPES:
            raise bad_request(f"The parameter '{name}' has the unknown type {definition.get('type')!r}.")


def _check_expressions(value: Any, root: str, declared: set[str]) -> None:
    system = {"RunId", "Pipeline", "DataFactory"} if root == "pipeline" else set()
    known = system | {f"parameters.{name}" if root == "pipeline" else name for name in declared}
    try:
        names = list(expressions.names(value))
    except expressions.ExpressionError as error:
        raise bad_request(f"ErrorCode=InvalidTemplate, ErrorMessage={error}.") from error
    for name_root, name in names:
        if name_root != root or name not in known:
            raise bad_request(
                f"ErrorCode=InvalidTemplate, ErrorMessage=The expression '{name_root}().{name}' refers to nothing that is "
                f"defined here. Defined: {', '.join(f'{root}().{name}' for name in sorted(known)) or 'nothing'}."
            )


def _checked_type(value: Json, what: str, known: Any) -> str:
    kind = value.get("type")
    if not isinstance(kind, str) or not kind:
        raise bad_request(f"The {what} must have a 'type'.")
    if kind not in known:
        raise NotImplementedHere(f"The {what} type '{kind}'")
    return kind


def _check_keys(value: Json, known: set[str], what: str) -> None:
    for key in value:
        if key not in known:
            raise NotImplementedHere(f"The {what} '{key}'")


def _check_required(value: Json, keys: tuple[str, ...], what: str) -> None:
    for key in keys:
        if value.get(key) in (None, ""):
            raise bad_request(f"The {what} must have '{key}'.")
