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
    """Reads every name in YAML as text, for instance of a pricer named `1`, `yes` or `null`; a name is set once."""

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
