"""Application builder for `serve run serve_app:app` and `serve deploy`; nothing else.

Arguments: `config=grid.yaml` names the settings file (else RAYGRID_CONFIG does).
"""

from pathlib import Path

from ray import serve

from raygrid.composition import ACTORS
from raygrid.parent.ingress import build
from raygrid.settings.model import load_settings


def app(args: dict[str, str]) -> serve.Application:
    """Build the parents' application from settings."""
    config = args.get("config")
    return build(load_settings(Path(config) if config else None), ACTORS)
