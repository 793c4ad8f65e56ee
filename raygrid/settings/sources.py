"""Where settings come from: variables of the environment and a YAML file, read so that every name stays as written.

Called by `model.py`, and for the variables' names by the command line.
"""

from __future__ import annotations

import os
from typing import Any

import yaml
from pydantic_settings import EnvSettingsSource

from raygrid.settings import messages

PREFIX = "RAYGRID__"


def set_by_variables() -> frozenset[str]:
    """Dotted names, in small letters, of the settings that variables of the environment set."""
    names = (name.upper() for name in os.environ)
    return frozenset(name.removeprefix(PREFIX).lower().replace("__", ".") for name in names if name.startswith(PREFIX))


class Variables(EnvSettingsSource):
    """Variables of the environment: their names are read in small letters, but for the variables of a pricer."""

    def __call__(self) -> dict[str, Any]:
        """What the variables set, as nested dicts."""
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
    """Reads YAML in which every name is text, such as that of a pricer named `1`, `yes` or `null`, and stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Settings, or values by name.

        Raises:
            ConstructorError: a name stands there twice, of which YAML would take the last one in silence.
        """
        named: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
                if (first := named.setdefault(key.value, key)) is not key:
                    raise messages.twice(first, key)
        return super().construct_mapping(node, deep)
