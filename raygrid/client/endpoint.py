"""The grid that a client calls: its entries, the API key, and whether it has answered yet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx

from raygrid.client.retry import RetryPolicy, retry_after_s
from raygrid.errors import ConnectionFailedError, SettingsError
from raygrid.system.loopback import is_this_machine

PLAIN_HTTP = "RAYGRID_PLAIN_HTTP"
"""The environment variable that lets clients send their key over plain HTTP to other machines."""


@dataclass(slots=True)
class Endpoint:
    """One grid as a client sees it.

    A grid may have several entries, such as its parents' machines. All calls go to one entry until it fails, and then
    to the next one.

    Attributes:
        url: base URL without a trailing slash; several entries are separated by commas.
        api_key: sent as a bearer token; never shown.
        retry: how long and how often to try again.
        answered: whether the grid has answered yet.
        plain_http: whether the key may be sent without encryption to other machines; None asks `RAYGRID_PLAIN_HTTP`.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    answered: bool = False
    plain_http: bool | None = None
    entries: tuple[str, ...] = field(init=False)
    _chosen: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        given = [each for each in self.url.split(",") if each.strip()] or [""]
        self.entries = tuple(dict.fromkeys(_checked(each) for each in given))
        self.url = ",".join(self.entries)
        key = (self.api_key or "").strip()
        if not (key.isascii() and key.isprintable()) or " " in key:
            # The HTTP library would refuse it with an error message that contains the key.
            raise SettingsError("the API key has a character that no key has; check RAYGRID_API_KEY or api_key")
        self.api_key = key or None
        if self.api_key is not None and not _may_be_plain(self.plain_http):
            self._require_encryption()

    def _require_encryption(self) -> None:
        own = self.own_hosts
        parsed = [(entry, httpx.URL(entry)) for entry in self.entries]
        exposed = [entry for entry, url in parsed if url.scheme == "http" and url.host not in own]
        if exposed:
            raise SettingsError(
                f"the API key would go to {exposed[0]} without encryption, where others on the way can read it. Use an "
                "https URL, or allow this in a network that you trust: RAYGRID_PLAIN_HTTP=1, --plain-http or "
                "plain_http=True"
            )

    @property
    def own_hosts(self) -> frozenset[str]:
        """The hosts of the entries on this machine; proxies of the environment are not used for them."""
        hosts = (httpx.URL(entry).host for entry in self.entries)
        return frozenset(host for host in hosts if is_this_machine(host))

    @property
    def is_local(self) -> bool:
        """Whether all entries are on this machine."""
        return all(httpx.URL(entry).host in self.own_hosts for entry in self.entries)

    @property
    def entry(self) -> str:
        """The entry to which calls go now."""
        return self.entries[self._chosen]

    def leave(self, entry: str) -> None:
        """Choose the next entry, unless another failed call has done so already."""
        if entry == self.entry:
            self._chosen = (self._chosen + 1) % len(self.entries)

    def wanted_pause_s(self, response: httpx.Response, failures: int) -> float:
        """Seconds to wait before the next try, as the answer requests; `failures` came before this one.

        A 503 concerns one parent: another entry may be tried at once, until each has been tried.
        """
        in_turn = (failures + 1) % len(self.entries)
        return 0.0 if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE and in_turn else retry_after_s(response)

    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        accept = {"Accept": "application/json, */*"}
        return accept if self.api_key is None else {**accept, "Authorization": f"Bearer {self.api_key}"}

    def budget_s(self, error: httpx.TransportError | None = None) -> float:
        """Seconds in which to try again; fewer if the URL refuses connections and has never answered."""
        if isinstance(error, httpx.ConnectError) and not self.answered:
            return min(self.retry.retry_s, self.retry.first_contact_s)
        return self.retry.retry_s

    def no_answer(self, error: httpx.TransportError) -> ConnectionFailedError:
        """Make the error for a grid that does not answer."""
        why = str(error) or type(error).__name__
        if isinstance(error, httpx.RemoteProtocolError) and ("b'" in why or 'b"' in why):
            why = "the server there does not speak HTTP"  # instead of the bytes that it sent
        if "WRONG_VERSION_NUMBER" in why or "record layer failure" in why:
            why = "the server there speaks http, not https"
        if self.answered:
            return ConnectionFailedError(
                f"the grid at {self.url} stopped answering ({why}) and did not answer the retries. Jobs that it has "
                "acknowledged go on; asking or submitting again with the same job ids is safe."
            )
        return ConnectionFailedError(
            f"no grid answers at {self.url} ({why}). Check the host and the port; start a grid on this machine with "
            "`raygrid up` or raygrid.init(), or set RAYGRID_URL to the URL of one that runs."
        )


class GridClient:
    """What both clients show of the grid that they call."""

    _endpoint: Endpoint

    @property
    def url(self) -> str:
        """URL of the grid's parents; several entries are separated by commas."""
        return self._endpoint.url

    @property
    def has_key(self) -> bool:
        """Whether the client sends an API key."""
        return self._endpoint.api_key is not None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of the grid at {self.url}>"


def one_url(url: str | Sequence[str]) -> str:
    """The entries of a grid as one text, separated by commas."""
    return url if isinstance(url, str) else ",".join(url)


def _may_be_plain(given: bool | None) -> bool:
    return os.environ.get(PLAIN_HTTP, "") in ("1", "true", "yes") if given is None else given


def _checked(url: str) -> str:
    """One entry, with its scheme and without a trailing slash.

    Raises:
        SettingsError: the URL is not valid.
    """
    url = url.strip()
    url = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise SettingsError(
            f"the grid's URL is not valid ({error}); write for instance http://localhost:8000"
        ) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise SettingsError("the grid's URL must look like http://host:8000 or https://host")
    if parsed.userinfo:
        raise SettingsError(f"the URL of the grid at {parsed.host} has a user or password; pass api_key instead")
    return url
