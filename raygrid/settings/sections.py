"""The sections of the settings except pricers: HTTP, groups, routing, placement, nodes and storage."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from raygrid.core.access import digest_of
from raygrid.settings.values import Name, Seconds, Section, Size

_SECRET_OPTION = re.compile(
    r"secret|password|access_key|account_key|service_account_key|customer_key|sas|token(?!_file)"
)
_KEY = re.compile(r"[!-~]+")
_KEY_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class ApiKey(Section):
    """A key that clients send as `Authorization: Bearer …`."""

    name: Name
    """Owner of the key; shown instead of the key."""
    key: SecretStr
    """The key: at least 16 printable ASCII characters without spaces. Make one with `openssl rand -hex 24`.

    Or its digest, as `sha256:` and 64 hexadecimal digits; then the grid's own commands need another key.
    """

    @field_validator("key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr) -> SecretStr:
        if len(key.get_secret_value()) < 16:
            raise ValueError("an API key needs at least 16 characters; make one with: openssl rand -hex 24")
        if _KEY.fullmatch(key.get_secret_value()) is None:
            raise ValueError(
                "an API key is sent in a header, so it must be printable ASCII without spaces; make one with: "
                "openssl rand -hex 24"
            )
        return key

    @property
    def digest(self) -> str:
        """The sha256 of the key, hexadecimal."""
        value = self.key.get_secret_value()
        found = _KEY_DIGEST.fullmatch(value)
        return found[1] if found is not None else digest_of(value)

    @property
    def is_readable(self) -> bool:
        """Whether the key itself is known, and not only its digest."""
        return _KEY_DIGEST.fullmatch(self.key.get_secret_value()) is None

    @property
    def hidden(self) -> ApiKey:
        """The same key, of which only the digest is known."""
        return self.model_copy(update={"key": SecretStr(f"sha256:{self.digest}")})


class Http(Section):
    """Where parents listen and what they accept."""

    host: str = "127.0.0.1"
    """Address on which parents listen; an address that other machines can reach requires `api_keys`."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port on which parents listen."""
    parents: int = Field(default=1, ge=1)
    """Number of parents. On a cluster, at most one runs on each machine; every parent answers for every job."""
    hosts: tuple[str, ...] = ()
    """Names by which clients may address the grid (`Host`), besides `localhost` on loopback; elsewhere by default any.

    Without this check, a web page could reach a grid on its reader's machine under a name that changes its address.
    """
    api_keys: tuple[ApiKey, ...] = ()
    """Keys with all roles; the name of each is its owner. `raygrid keys add` makes better ones, not kept in clear.

    Without any, a grid on loopback serves the user who started it without a key.
    """
    max_body: Size = 1024**3
    """Maximum size of the body of a request."""
    max_batch_jobs: int = Field(default=10_000, ge=1)
    """Maximum number of jobs in one `POST /batches`."""
    sync_wait_s: Seconds = 60.0
    """How long a synchronous submit waits if the request sets no time, seconds."""
    max_wait_s: Seconds = 300.0
    """Maximum time that a request waits, seconds; longer waits are cut to it."""

    @property
    def own_key(self) -> str | None:
        """A key for the grid's own commands; None without one whose text is known."""
        return next((each.key.get_secret_value() for each in self.api_keys if each.is_readable), None)

    @property
    def known_hosts(self) -> frozenset[str] | None:
        """The names that `Host` may have, in lower case; None for any."""
        if self.is_loopback:
            return frozenset({*map(str.lower, self.hosts), "localhost", "127.0.0.1", "[::1]", self.host})
        return frozenset(map(str.lower, self.hosts)) or None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the parents."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Group(Section):
    """Site and quota of a group."""

    site: str | None = None
    """Location of the group; submits may name a site."""
    quota: int | None = Field(default=None, ge=1)
    """Maximum number of attempts that run at once in this group; by default the number of its slots."""


class Routing(Section):
    """How a parent chooses a group."""

    policy: Literal["auto", "least_loaded", "topology", "hash"] = "auto"
    """How a parent chooses a group.

    `least_loaded`: the group with the lowest load. `topology`: the nearest site first. `hash`: by the affinity.
    `auto`: `hash` for a submit with an affinity, `topology` for a submit that names a site, otherwise `least_loaded`.
    """
    hash_load_bound: float = Field(default=1.25, ge=1.0, allow_inf_nan=False)
    """With `hash`, a group is skipped if its load is this many times the average."""
    site_distance: dict[str, dict[str, float]] = Field(default={})
    """Distances between sites, such as `{tokyo: {osaka: 1, london: 10}}`; each applies in both directions."""
    patience_s: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Expected wait for a slot at the site of a submit above which a farther site is chosen, seconds."""
    max_queued: int = Field(default=200_000, ge=1)
    """Maximum number of queued jobs in a group; when every group has as many, submits get 429."""
    lost_after_s: float = Field(default=2.0, ge=0.5, le=86_400, allow_inf_nan=False)
    """A group is lost this long after its leader's lease expired, seconds; then other groups take its jobs.

    A group that has not been seen working since the grid or the job store started gets 30 seconds.
    """


class Placement(Section):
    """How a leader chooses a node, and when it retries."""

    policy: Literal["least_loaded", "weighted_round_robin"] = "least_loaded"
    """How a leader chooses a node."""
    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default={})
    """For `weighted_round_robin`: weights of nodes by name, such as `{rack-a-1: 2.0}`, multiplied by their slots."""
    prefetch: int = Field(default=1, ge=0)
    """Work that a node gets beyond its slots if jobs are short, in multiples of about 0.2 s; 0: none."""
    max_attempts: int = Field(default=3, ge=1)
    """Number of attempts that may fail through a fault of the grid before the job fails."""
    window: int = Field(default=8_192, ge=1)
    """Number of queued jobs that a leader holds in memory; the others wait in the job store."""
    probation_after: int = Field(default=3, ge=1)
    """Number of consecutive failures after which a node is on probation."""
    probation_s: Seconds = 15.0
    """How long a node stays on probation, seconds."""
    node_timeout_s: Seconds = 4.0
    """Silence after which a node's jobs run elsewhere, seconds; a node whose agent died is lost at once."""


class Node(Section):
    """How a node runs pricers."""

    slots: int | None = Field(default=None, ge=1)
    """Number of pricers that run at once on a node; by default the CPUs allowed by affinity and cgroup quota."""
    cache: Size = 64 * 1024**2
    """Memory on each node for the cache of its latest results, in Ray's object store."""
    data_cache: Size = 4 * 1024**3
    """Disk space on each node for local copies of shared inputs."""
    kill_grace_s: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    """Time between SIGTERM and SIGKILL for a pricer, seconds."""
    memory_reserve: Size | None = None
    """Memory kept free on the machine and in its cgroup; by default 5 %, at least 256 MB and at most 4 GB.

    If less is free, the pricer that grew most is killed and its job runs again alone.
    """
    helper_linger_s: float = Field(default=3.0, ge=0, allow_inf_nan=False)
    """How long helper processes stay after the last attempt of their pricer, seconds."""
    helper_age_s: Seconds = 3600.0
    """Age at which a helper process is ended, between two attempts, seconds."""


class Storage(Section):
    """Where jobs, inputs and results are kept; the defaults are under `state_dir`."""

    state_dir: Path = Path("~/.raygrid")
    """Directory for logs and job directories, and for job store and blobs unless the next two settings move them."""
    database: str | None = Field(default=None, repr=False)
    """The job store: `postgresql://user:password@host/raygrid` for a cluster, or the path of a SQLite file."""
    blobs: str | None = Field(default=None, repr=False)
    """The blob store: a shared directory, `s3://bucket/prefix`, `gs://…` or `az://…`; the same on every machine."""
    blob_options: dict[str, bool | int | float | str] = Field(default={})
    """Options of an object store, such as `{endpoint: "http://minio:9000", region: eu-1, allow_http: true}`.

    Credentials come from the environment of every machine, for S3 as `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    """
    inline: Size = 8 * 1024
    """Inputs up to this size travel with their job instead of through the blob store."""
    retention_days: float = Field(default=7.0, ge=0, allow_inf_nan=False)
    """How long the input and result of a job are kept after its end, days."""
    purge_every_s: Seconds = 600.0
    """Time between two removals of expired jobs, seconds."""

    @field_validator("blob_options")
    @classmethod
    def _no_secrets(cls, options: dict[str, bool | int | float | str]) -> dict[str, bool | int | float | str]:
        for name in options:
            if _SECRET_OPTION.search(name.lower()):
                raise ValueError(
                    f"{name!r} is a credential; credentials come from the environment of every machine, for S3 as "
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                )
        return options
