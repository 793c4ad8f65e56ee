"""Requests of pages of other sites, and requests for other hosts, are refused."""

from __future__ import annotations

import pytest

from raygrid.errors import ForbiddenError, InvalidRequestError
from raygrid.parent.http.own_site import require_own_site
from raygrid.settings.sections import Http

LOOPBACK = Http().known_hosts
HERE = ("host", "localhost:8000")


def ask(
    *headers: tuple[str, str], method: str = "POST", version: str = "1.1", hosts: frozenset[str] | None = LOOPBACK
) -> None:
    require_own_site([(name.encode(), value.encode("latin-1")) for name, value in headers], method, version, hosts)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]", "localhost.:8000"]
)
def test_a_program_may_use_any_name_of_loopback(host: str) -> None:
    ask(("host", host))


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", "é:8000", ":"]
)
def test_another_host_is_refused_with_the_setting_that_allows_it(host: str) -> None:
    """Else a page could read from a grid under a name that points to this machine after the page was loaded."""
    with pytest.raises(ForbiddenError, match=r"http\.hosts"):
        ask(("host", host))


def test_hosts_can_be_added_and_are_any_beyond_loopback() -> None:
    ask(("host", "Grid.Desk:8000"), hosts=Http(hosts=("grid.desk",)).known_hosts)
    ask(("host", "grid.desk:8000"), hosts=Http(host="0.0.0.0").known_hosts)
    with pytest.raises(ForbiddenError):
        ask(("host", "evil.example"), hosts=Http(host="0.0.0.0", hosts=("grid.desk",)).known_hosts)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_a_page_of_another_site_is_refused(site: str) -> None:
    with pytest.raises(ForbiddenError, match="a page of another site"):
        ask(HERE, ("sec-fetch-site", site))
    with pytest.raises(ForbiddenError):
        ask(HERE, ("sec-fetch-site", site), ("sec-fetch-mode", "no-cors"), method="GET")
    with pytest.raises(ForbiddenError):
        ask(HERE, ("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), method="POST")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:8001", "http://localhost", "file://"]
)
def test_an_origin_other_than_the_grid_is_refused(origin: str) -> None:
    """Also where the browser does not tell the site."""
    with pytest.raises(ForbiddenError, match="a page of another site"):
        ask(HERE, ("origin", origin))


def test_the_grids_own_pages_and_links_to_them_are_answered() -> None:
    ask(HERE, ("sec-fetch-site", "same-origin"), ("origin", "http://localhost:8000"))
    ask(HERE, ("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate"), method="GET")
    ask(HERE, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), method="GET")


@pytest.mark.parametrize("headers", [(), (("host", ""),), (HERE, HERE), (HERE, ("origin", "a"), ("origin", "b"))])
def test_a_missing_or_repeated_header_is_refused(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(InvalidRequestError):
        ask(*headers)


def test_the_checks_of_balancers_need_no_host() -> None:
    """HTTP/1.0 has no such header."""
    ask(version="1.0", method="GET")
