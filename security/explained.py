"""What Schemathesis reports although the grid is right: each with the reason why it stays.

An explanation covers one kind of failure of some operations, by its text, so that every other one is
still a finding.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Kinds of failures, by the names of their classes in Schemathesis.
REJECTED = "RejectedPositiveData"  # a request that the schema allows was refused
ACCEPTED = "AcceptedNegativeData"  # one that the schema forbids was accepted
SERVER_ERROR = "ServerError"


class Explained(NamedTuple):
    """A failure that stays.

    Attributes:
        name: a word for the report.
        operation: pattern of the operation's label, such as `GET /jobs`.
        status: of the answer.
        text: pattern of the answer's `detail`; for accepted requests, of what Schemathesis reports.
        reason: why it stays.
        kind: of the failure, by the name of its class in Schemathesis.
    """

    name: str
    operation: str
    status: int
    text: str
    reason: str
    kind: str = REJECTED


_SUBMITS = r"POST /(submit(/\{jobId\})?|batches)"
_QUOTED = r"""('.*'|".*")"""


def _of_another_type(fields: str) -> str:
    """What Schemathesis reports of a field with a value of another JSON type, in its two ways of saying it."""
    here, elsewhere = rf"({fields})\b.*: Incorrect type", rf"violates `type` at /properties/({fields})\b"
    return rf"[\s\S]*Invalid component: in body\s+- ({here}|{elsewhere})"


EXPLAINED = (
    Explained(
        "unknown cursor",
        r"GET /(jobs|batches)",
        422,
        r"the cursor '.*' is not a ",
        "A cursor comes from the page before; a schema cannot say which ones exist. Without a refusal, the list would "
        "have a gap.",
    ),
    Explained(
        "one of two",
        r"GET /events",
        422,
        r"give exactly one of ",
        "OpenAPI cannot say that exactly one of two query parameters is needed. The description says it.",
    ),
    Explained(
        "unknown name",
        _SUBMITS,
        422,
        r"(there is no pricer|job .*: there is no shared data) ",
        "Which pricers and shared inputs there are changes while the grid runs, so the schema cannot list them.",
    ),
    Explained(
        "no arguments",
        _SUBMITS,
        422,
        r"job .*: pricer '.*' takes no args",
        "Whether a pricer takes arguments is a property of the pricer, in `GET /pricers`.",
    ),
    Explained(
        "part without filename",
        _SUBMITS,
        422,
        rf"(the option {_QUOTED} is not UTF-8 text|unknown option {_QUOTED}|the (form has no file|batch has no files))",
        "OpenAPI cannot say that a part needs a filename; without one a part is an option. The description says it.",
    ),
    Explained(
        "name that ends with a backslash",
        _SUBMITS,
        422,
        r"a header of the form is malformed: ",
        "Schemathesis does not escape a backslash at the end of a part's name, so that the name has no end.",
    ),
    Explained(
        "id of a part",
        r"POST /batches",
        422,
        r"'.*' is not a jobId",
        "The name of a file's part is its jobId; form encodings have no patterns for names of further parts.",
    ),
    Explained(
        "content of a text",
        _SUBMITS,
        422,
        r"(the option 'jobs' |\w+ must be a (list of )?texts? |args are longer than )",
        "The field `jobs` is JSON in a text, and texts are without NUL; the description says it.",
    ),
    Explained(
        "text in a form",
        _SUBMITS,
        202,
        _of_another_type("args|data|pricer|affinity|site|jobId|batchId|jobs"),
        "All values of a form are texts: another JSON type, written as text, is a text like any other.",
        ACCEPTED,
    ),
    Explained(
        "text in a form that was waited for",
        _SUBMITS,
        200,
        _of_another_type("args|data|pricer|affinity|site"),
        "As before, on the route that answers with the result.",
        ACCEPTED,
    ),
    Explained(
        "too large",
        r"(POST|PUT) .*",
        413,
        r"",
        "The body is longer or has more options than a valid one. Schemathesis does not know that this status refuses.",
        ACCEPTED,
    ),
    Explained(
        "not ready",
        r"GET /health/ready",
        503,
        r"",
        "This status is the answer of the route: a balancer sends no requests to this parent.",
        SERVER_ERROR,
    ),
)


def explanation(kind: str, operation: str, status: int, text: str) -> Explained | None:
    """The explanation of a failure, if it has one."""
    for each in EXPLAINED:
        matches = re.fullmatch(each.operation, operation) and re.match(each.text, text)
        if matches and (kind, status) == (each.kind, each.status):
            return each
    return None
