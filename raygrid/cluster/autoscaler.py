"""Makes machines that were added to `cluster.yaml` known to a running autoscaler.

Ray's autoscaler reads its configuration anew while it runs, but with the `local` provider it looks for machines only in
a file of its own, which is brought up to date when a provider is made; and it makes its provider once. So a second
`ray up` would wait for its new workers for ever. Making a provider beside it, on the same machine, updates the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from raygrid.errors import SettingsError
from raygrid.system.home import expanded

OPTION = "--autoscaling-config"


def configuration(ray_args: Sequence[str]) -> Path | None:
    """The autoscaler's configuration among the options of `ray start`, if there is one."""
    for index, word in enumerate(ray_args):
        name, equals, value = word.partition("=")
        if name == OPTION:
            value = value if equals else ray_args[index + 1] if index + 1 < len(ray_args) else ""
            return expanded(value) if value else None
    return None


def update_autoscaler(ray_args: Sequence[str]) -> None:
    """Let the autoscaler of this machine, the head, know the machines that its configuration names now.

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
            f"{path} is not an autoscaler's configuration; it must name cluster_name and provider.type, as cluster.yaml"
        ) from None
    from ray.autoscaler._private.local.node_provider import LocalNodeProvider  # noqa: PLC0415 - brings Ray

    LocalNodeProvider(provider, name)  # type: ignore[no-untyped-call]  # Ray leaves it untyped
