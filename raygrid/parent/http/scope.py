"""What the parts of a parent's HTTP interface tell each other about a request, as entries of its ASGI scope."""

ANOTHER_USER = "raygrid.another_user"
"""Set by the listener of a grid without keys: the client is another user of this machine than who started the grid."""

CALLER = "raygrid.caller"
"""Who makes the request, once that is known (`core/access.py`)."""

HIDDEN = "raygrid.hidden"
"""Set if the answer hides from the caller that something of another owner exists, for the audit log."""
