"""A request body of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


class JsonBody:
    """Values as JSON, which can be sent any number of times."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._content = json.dumps(values).encode()

    @property
    def content_type(self) -> str:
        """Media type for the request's header."""
        return "application/json"

    @property
    def length(self) -> int:
        """Length, bytes."""
        return len(self._content)

    def chunks(self) -> Iterator[bytes]:
        """The content."""
        yield self._content
