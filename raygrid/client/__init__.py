"""The client library: plain HTTP to the parents of a grid, blocking or in an event loop.

It imports neither Ray nor any tier of the grid, so it runs on any machine that reaches the grid over HTTP.
"""

from raygrid.client.async_client import AsyncClient
from raygrid.client.async_jobs import AsyncBatchJobs, AsyncJob
from raygrid.client.blocking_client import Client
from raygrid.client.completion import as_completed
from raygrid.client.jobs import BatchJobs, Job
from raygrid.client.options import JobOptions
from raygrid.client.result import Result
from raygrid.client.retry import RetryPolicy
from raygrid.client.status import (
    BatchStatus,
    Capacity,
    DataInfo,
    GroupStatus,
    JobStatus,
    NodeStatus,
    PricerInfo,
)

__all__ = [
    "AsyncBatchJobs",
    "AsyncClient",
    "AsyncJob",
    "BatchJobs",
    "BatchStatus",
    "Capacity",
    "Client",
    "DataInfo",
    "GroupStatus",
    "Job",
    "JobOptions",
    "JobStatus",
    "NodeStatus",
    "PricerInfo",
    "Result",
    "RetryPolicy",
    "as_completed",
]
