"""The tiers of a grid, the calls between them, and the two stores."""

from docs.diagrams.drawing import Arrow, Box, Diagram

DIAGRAM = Diagram(
    name="tiers",
    alternative=(
        "A client sends HTTP to a parent; the parent gives jobs to a group leader, the leader gives attempts to node "
        "agents, and a node agent runs the pricer. Jobs are in the job store, inputs and results in the blob store."
    ),
    width=760,
    height=560,
    boxes=(
        Box("client", 380, 36, "client", ("curl, Python, any program",), width=230, kind="outside"),
        Box("parent", 380, 160, "parent", ("stores jobs, chooses a group", "any number of them"), width=230),
        Box("leader", 380, 290, "group leader", ("chooses a node by free slots", "one per rack, and a standby"), 230),
        Box("node", 380, 420, "node agent", ("at most as many pricers as slots", "one per machine"), width=230),
        Box("pricer", 380, 530, "pricer", ("your program",), width=230, kind="outside"),
        Box("jobs", 655, 225, "job store", ("SQLite or PostgreSQL", "every job is one row"), width=180, kind="store"),
        Box("blobs", 105, 290, "blob store", ("directory or S3", "inputs and results"), width=180, kind="store"),
    ),
    arrows=(
        Arrow("client", "parent", ("HTTP",), both_ways=True),
        Arrow("parent", "leader", ("jobs",), both_ways=True),
        Arrow("leader", "node", ("attempts, reports",), both_ways=True),
        Arrow("node", "pricer", ("job directory",), both_ways=True),
        Arrow("parent", "jobs", both_ways=True),
        Arrow("leader", "jobs", both_ways=True),
        Arrow("node", "blobs", both_ways=True),
        Arrow("parent", "blobs", both_ways=True),
    ),
)
