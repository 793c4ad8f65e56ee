"""Adds the new machines of `cluster.yaml` to a running autoscaler.

Ray's autoscaler re-reads its configuration while it runs, but its `local` provider reads the machines from a file that
is updated only when a provider is made, which the autoscaler does once. A second `ray up` would wait forever for its
new workers. Making another provider on the same machine updates the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from raygrid.errors import SettingsError
from raygrid.system.home import expanded

OPTION = "--autoscaling-config"


def configuration(ray_args: Sequence[str]) -> Path | None:
    """The path of the autoscaler's configuration in the options of `ray start`, if given."""
    for index, word in enumerate(ray_args):
        name, equals, value = word.partition("=")
        if name == OPTION:
            value = value if equals else ray_args[index + 1] if index + 1 < len(ray_args) else ""
            return expanded(value) if value else None
    return None


def update_autoscaler(ray_args: Sequence[str]) -> None:
    """Add the machines that the autoscaler's configuration names now; called on the head.

    Raises:
        SettingsError: the configuration cannot be read.
    """
    path = configuration(ray_args)
    if path is None:
        return
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        provider, name = config["provider"], config["cluster_name"]
        if provider["type"] != "local":
            return
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"cannot read the autoscaler's configuration {path}: {error}") from error
    except (KeyError, TypeError):
        raise SettingsError(
            f"{path} is not an autoscaler's configuration; it needs cluster_name and provider.type, as in cluster.yaml"
        ) from None
    from ray.autoscaler._private.local.node_provider import LocalNodeProvider  # noqa: PLC0415 - imports Ray

    LocalNodeProvider(provider, name)  # type: ignore[no-untyped-call]  # Ray leaves it untyped
