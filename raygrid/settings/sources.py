"""The sources of settings: environment variables and a YAML file, read so that names keep their spelling.

Called by `model.py`, and for the names of variables by the command line.
"""

from __future__ import annotations

import os
from typing import Any

import yaml
from pydantic_settings import EnvSettingsSource

from raygrid.settings import messages

PREFIX = "RAYGRID__"
MOST_DEPTH = 50
MOST_VALUES = 100_000


def set_by_variables() -> frozenset[str]:
    """Dotted names, in lower case, of the settings that environment variables set."""
    names = (name.upper() for name in os.environ)
    return frozenset(name.removeprefix(PREFIX).lower().replace("__", ".") for name in names if name.startswith(PREFIX))


class Variables(EnvSettingsSource):
    """Environment variables. Their names are read in lower case, except the names in a pricer's `env`."""

    def __call__(self) -> dict[str, Any]:
        """The values of the variables, as nested dicts."""
        values = super().__call__()
        written = {name.lower(): name for name in os.environ}
        for name, pricer in (values.get("pricers") or {}).items():
            env = pricer.get("env") if isinstance(pricer, dict) else None
            if not isinstance(env, dict):
                continue
            before = f"{self.env_prefix}pricers__{name}__env__".lower()
            pricer["env"] = {written.get(before + key, before + key)[len(before) :]: env[key] for key in env}
        return values


class NamesAreText(yaml.SafeLoader):
    """Reads every name in YAML as text, for instance of a pricer named `1`, `yes` or `null`; a name is set once.

    The depth and the number of values are bounded, because a few lines of aliases can stand for more values than a
    machine has memory.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}  # of the nodes that were read, by their ids

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Read a node.

        Raises:
            ConstructorError: it lies too deep, contains itself, or the file has too many values.
        """
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call] # PyYAML has no types for it
        is_alias, before = self.check_event(yaml.AliasEvent), self._values
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise messages.too_large(mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise messages.contains_itself(mark)
        self._values += self._sizes[id(node)] if is_alias else 1
        if self._values > MOST_VALUES:
            raise messages.too_large(mark)
        self._sizes.setdefault(id(node), self._values - before)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Read a value.

        Raises:
            ConstructorError: it looks like a date or a number, or has such a tag, but is not one.
        """
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError):  # what PyYAML raises for them
            raise messages.unreadable_value(node) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Read a mapping.

        Raises:
            ConstructorError: a name is set twice; plain YAML would ignore the first value.
        """
        named: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
                if (first := named.setdefault(key.value, key)) is not key:
                    raise messages.repeated_name(first, key)
        return super().construct_mapping(node, deep)
