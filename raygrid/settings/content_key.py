"""The content key of a job: jobs with the same key have the same result if their pricer is deterministic.

A node makes the key of a result from the pricer definition of the job's submit; a parent makes the key of a new job
from its own settings. Both use the same function.
"""

from __future__ import annotations

import hashlib
import json

from raygrid.models import JobSpec
from raygrid.settings.definition import LIMITS, same_definition
from raygrid.settings.pricer import Pricer

# Limits may differ between the settings of a parent and of a node. All other settings, also future ones, are part of
# the key: an unnecessary run does less harm than a wrong result.
_NO_PART = {*LIMITS, "recycle_after", "recycle_memory"}
MOST_DIGESTS = 1_000


def _digest(name: str, pricer: Pricer) -> str:
    """A digest of a pricer's settings. Slow on purpose: `env` may hold secrets, which must not be found by trying."""
    text = json.dumps([name, pricer.model_dump(mode="json", exclude=_NO_PART)], sort_keys=True).encode()
    return hashlib.scrypt(text, salt=b"raygrid reuse", n=2**14, r=8, p=1, dklen=32).hex()


class ContentKeys:
    """Makes keys and caches the digests of settings. Thread-safe."""

    def __init__(self) -> None:
        self._digests: dict[tuple[str, str], tuple[Pricer, str]] = {}  # by pricer and definition

    def key(self, spec: JobSpec, pricer: Pricer | None) -> str | None:
        """The key of a job's result with these settings; None if the pricer's results are not reused."""
        if pricer is None or pricer.reuse != "content":
            return None
        what = spec.pricer, spec.definition
        known = self._digests.get(what)
        if known is None or (known[0] is not pricer and not same_definition(known[0], pricer)):
            if len(self._digests) >= MOST_DIGESTS:
                self._digests.clear()
            known = self._digests[what] = (pricer, _digest(spec.pricer, pricer))
        data = sorted((each.name, each.digest) for each in spec.data)
        owner = "" if pricer.reuse_across_owners else spec.owner
        # The input's file name is included, because the pricer sees it.
        identity = [known[1], spec.input.digest, spec.filename, spec.args, data, owner]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()
