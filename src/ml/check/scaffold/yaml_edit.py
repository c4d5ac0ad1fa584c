"""Changes single values and keys in the text of a YAML file; comments and layout stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import yaml

Key: TypeAlias = tuple[str, ...]  # such as ("train", "table")


def edit(text: str, values: Mapping[Key, str], keys: Mapping[Key, str] | None = None) -> str:
    """The text with other scalar `values` and other names of `keys`. Raises KeyError for a key that is not there."""
    root = yaml.compose(text, yaml.SafeLoader)
    changes = [(_find(root, key)[1], new) for key, new in values.items()]
    changes += [(_find(root, key)[0], new) for key, new in (keys or {}).items()]
    for node, new in sorted(changes, key=lambda change: change[0].start_mark.index, reverse=True):
        text = text[: node.start_mark.index] + new + text[node.end_mark.index :]
    return text


def _find(node: yaml.Node | None, key: Key) -> tuple[yaml.Node, yaml.Node]:
    """The nodes of a key and of its value."""
    for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if name.value == key[0]:
            return (name, value) if len(key) == 1 else _find(value, key[1:])
    raise KeyError(".".join(key))
