"""The sections of the settings beside the pricers: HTTP, groups, routing, placement, nodes and storage."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from raygrid.settings.values import Name, Seconds, Section, Size

_SECRET_OPTION = re.compile(
    r"secret|password|access_key|account_key|service_account_key|customer_key|sas|token(?!_file)"
)
_KEY = re.compile(r"[!-~]+")


class ApiKey(Section):
    """A key that clients send as `Authorization: Bearer …`; the name is its owner's."""

    name: Name
    """Whose key it is; shown in place of the key."""
    key: SecretStr
    """The key: at least 16 printable ASCII characters without spaces. Make one with `openssl rand -hex 24`."""

    @field_validator("key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr) -> SecretStr:
        if len(key.get_secret_value()) < 16:
            raise ValueError("an API key needs at least 16 characters; make one with: openssl rand -hex 24")
        if _KEY.fullmatch(key.get_secret_value()) is None:
            raise ValueError(
                "an API key travels in a header, so it must be printable ASCII without spaces; make one with: "
                "openssl rand -hex 24"
            )
        return key


class Http(Section):
    """Where parents listen and what they accept."""

    host: str = "127.0.0.1"
    """Address on which parents listen; one that other machines can reach needs `api_keys`."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port on which parents listen."""
    parents: int = Field(default=1, ge=1)
    """Number of parents; on a cluster at most one runs on a machine, and any of them answers for any job."""
    api_keys: tuple[ApiKey, ...] = ()
    """Keys that clients may send; with none, every client that reaches the port may use the grid."""
    max_body: Size = 1024**3
    """Largest body of one request."""
    max_batch_jobs: int = Field(default=10_000, ge=1)
    """Most jobs of one `POST /batches`."""
    sync_wait_s: Seconds = 60.0
    """How long a synchronous submit waits unless it asks for another time, seconds."""
    max_wait_s: Seconds = 300.0
    """Longest wait that a request may ask for, seconds."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the parents."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Group(Section):
    """What is known of a group beyond its Ray resource."""

    site: str | None = None
    """Where the group is; submits may name a site."""
    quota: int | None = Field(default=None, ge=1)
    """Most attempts at once in this group; by default as many as it has slots."""


class Routing(Section):
    """How a parent chooses a group."""

    policy: Literal["auto", "least_loaded", "topology", "hash"] = "auto"
    """How a parent chooses a group.

    `least_loaded`; `topology` (nearest site first); `hash` (by affinity); `auto`: `hash` for a submit with an
    affinity, `topology` for one that names a site, else `least_loaded`.
    """
    hash_load_bound: float = Field(default=1.25, ge=1.0, allow_inf_nan=False)
    """With `hash`, a group that is this many times as loaded as the average is passed over."""
    site_distance: dict[str, dict[str, float]] = Field(default={})
    """Distances between sites, such as `{tokyo: {osaka: 1, london: 10}}`; each counts both ways."""
    patience_s: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Longest expected wait for a slot at the site that a submit names before a farther site is taken, seconds."""
    max_queued: int = Field(default=200_000, ge=1)
    """Most jobs that wait in one group; beyond it submits get 429."""
    lost_after_s: float = Field(default=2.0, ge=0.5, le=86_400, allow_inf_nan=False)
    """A group is lost this long after its leader's lease ran out, seconds; then other groups take its jobs.

    A group that was not seen at work since the grid or the job store came up gets 30 seconds.
    """


class Placement(Section):
    """How a leader chooses a node, and when it tries again."""

    policy: Literal["least_loaded", "weighted_round_robin"] = "least_loaded"
    """How a leader chooses a node."""
    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default={})
    """For `weighted_round_robin`: weight of a node by name, such as `{rack-a-1: 2.0}`, times its slots."""
    prefetch: int = Field(default=1, ge=0)
    """Multiples of about 0.2 s of work that a node is handed beyond its slots where jobs are short; 0: none."""
    max_attempts: int = Field(default=3, ge=1)
    """Attempts that may fail for the grid's reasons before the job fails."""
    window: int = Field(default=8_192, ge=1)
    """Queued jobs that a leader holds in memory; the rest waits in the job store."""
    probation_after: int = Field(default=3, ge=1)
    """Failures in a row after which a node is on probation."""
    probation_s: Seconds = 15.0
    """How long a node stays on probation, seconds."""
    node_timeout_s: Seconds = 4.0
    """Silence after which a node's jobs run elsewhere, seconds; a node whose agent died is lost at once."""


class Node(Section):
    """How a node runs pricers."""

    slots: int | None = Field(default=None, ge=1)
    """Pricers at once on a node; by default the CPUs that affinity and cgroup quota leave."""
    cache: Size = 64 * 1024**2
    """Results kept in the object store of each node for fast reading."""
    data_cache: Size = 4 * 1024**3
    """Local copies of shared inputs on each node."""
    kill_grace_s: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    """Time between SIGTERM and SIGKILL for a pricer, seconds."""
    memory_reserve: Size | None = None
    """Memory kept free on the machine and in its cgroup; by default 5 %, at least 256 MB and at most 4 GB.

    With less left, the pricer that grew most is killed and its job runs again alone.
    """
    helper_linger_s: float = Field(default=3.0, ge=0, allow_inf_nan=False)
    """How long helper processes stay after the last attempt of their pricer, seconds."""
    helper_age_s: Seconds = 3600.0
    """A helper process this old is ended between two attempts, seconds."""


class Storage(Section):
    """Where jobs, inputs and results are kept; the defaults are under `state_dir`."""

    state_dir: Path = Path("~/.raygrid")
    """Directory for the job store, blobs, logs and job directories, unless the next two settings name others."""
    database: str | None = Field(default=None, repr=False)
    """The job store: `postgresql://user:password@host/raygrid` for a cluster, else the path of a SQLite file."""
    blobs: str | None = Field(default=None, repr=False)
    """The blob store: a shared directory, `s3://bucket/prefix`, `gs://…` or `az://…`; the same on every machine."""
    blob_options: dict[str, bool | int | float | str] = Field(default={})
    """Options of an object store, such as `{endpoint: "http://minio:9000", region: eu-1, allow_http: true}`.

    Credentials come from the environment of every machine, for S3 as `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    """
    inline: Size = 8 * 1024
    """Inputs up to this size travel with their job instead of through the blob store."""
    retention_days: float = Field(default=7.0, ge=0, allow_inf_nan=False)
    """How long input and result are kept after a job's end, days."""
    purge_every_s: Seconds = 600.0
    """How often expired jobs are removed, seconds."""

    @field_validator("blob_options")
    @classmethod
    def _no_secrets(cls, options: dict[str, bool | int | float | str]) -> dict[str, bool | int | float | str]:
        for name in options:
            if _SECRET_OPTION.search(name.lower()):
                raise ValueError(
                    f"{name!r} is a credential; those come from the environment of every machine, for S3 as "
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                )
        return options
