"""Opens what obstore speaks to: options split by whom they concern, and limits so that no call waits for ever."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from obstore.store import from_url

from raygrid.errors import SettingsError
from raygrid.system.home import expanded

# Options of the HTTP client rather than of the object store; obstore wants them apart.
CLIENT_OPTIONS = frozenset(
    {
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "default_content_type",
        "default_headers",
        "http1_only",
        "http2_keep_alive_interval",
        "http2_keep_alive_timeout",
        "http2_keep_alive_while_idle",
        "http2_only",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "proxy_ca_certificate",
        "proxy_excludes",
        "proxy_url",
        "randomize_addresses",
        "read_timeout",
        "root_certificate",
        "timeout",
        "user_agent",
    }
)
LIMITS = {"connect_timeout": "3s", "read_timeout": "20s", "timeout": "60s"}
LOOK_LIMITS = {"connect_timeout": "3s", "read_timeout": "5s", "timeout": "5s"}


def directory_of(place: str) -> Path | None:
    """The directory that a setting names, by its path or by a `file:` URL; None where it names an object store.

    Raises:
        SettingsError: the URL has a `?` or a `#`, which no directory's name can have in a URL.
    """
    if not place.startswith("file:"):
        is_path = place.startswith(("/", "~", ".")) or not urlsplit(place).scheme
        return expanded(place).absolute() if is_path else None
    if set(place) & set("?#"):
        raise SettingsError(
            "storage.blobs: a file: URL must have no '?' or '#'; where they belong to the name of the directory, write "
            "its plain path instead of a URL"
        )
    return expanded(unquote(urlsplit(place).path)).absolute()


def open_remote(url: str, options: Mapping[str, Any], retry_s: float) -> tuple[Any, Any]:
    """An object store by URL, twice: to work with, and to look whether it is there, which gives up soon.

    Args:
        url: such as `s3://bucket/prefix`.
        options: of the store (`endpoint`, `region`) and of its HTTP client (`allow_http`, `timeout`).
        retry_s: how long a call is tried again before it fails.

    Raises:
        SettingsError: the URL or an option is wrong.
    """
    client = {name: value for name, value in options.items() if name in CLIENT_OPTIONS}
    config: Any = {name: value for name, value in options.items() if name not in CLIENT_OPTIONS}
    backoff = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2}
    patient: Any = {"max_retries": 10, "retry_timeout": timedelta(seconds=retry_s), "backoff": backoff}
    hasty: Any = {"max_retries": 1, "retry_timeout": timedelta(seconds=min(retry_s, 2.0)), "backoff": backoff}
    working: Any = {**LIMITS, **client}
    looking: Any = {**LOOK_LIMITS, **client}
    try:
        return (
            from_url(url, client_options=working, retry_config=patient, **config),
            from_url(url, client_options=looking, retry_config=hasty, **config),
        )
    except Exception as error:
        # Not chained: the error quotes the URL as it is.
        why = first_line(error).replace(url, shown(url))
        raise SettingsError(
            f"storage.blobs: cannot use {shown(url)!r} with storage.blob_options {sorted(options) or 'unset'}: {why}"
        ) from None


def shown(url: str) -> str:
    """A URL for people: without a user, a password or a query, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.scheme else url


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that obstore appends."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()
