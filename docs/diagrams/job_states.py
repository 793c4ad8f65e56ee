"""The states of a job and the transitions that `raygrid.core.lifecycle` allows."""

from docs.diagrams.drawing import Arrow, Box, Diagram

DIAGRAM = Diagram(
    name="job-states",
    alternative="A job is queued, then running, and ends as done, failed or cancelled; it may be queued again.",
    width=760,
    height=360,
    boxes=(
        Box("queued", 90, 40, "queued", ("waits for a slot",)),
        Box("running", 670, 40, "running", ("an attempt runs",)),
        Box("done", 380, 130, "done", ("its result is stored",), kind="end"),
        Box("failed", 380, 225, "failed", ("it has a reason",), kind="end"),
        Box("cancelled", 380, 320, "cancelled", ("a client asked for it",), kind="end"),
    ),
    arrows=(
        Arrow("queued", "running", ("an attempt starts",), bend=22),
        Arrow("running", "queued", ("attempt lost, or failed for the grid's reasons",), bend=22),
        Arrow("running", "done", ("pricer succeeded",)),
        Arrow("running", "failed", ("pricer failed, or", "attempts used up")),
        Arrow("running", "cancelled", ("cancelled",), bend=50),
        Arrow("queued", "done", ("result reused",)),
        Arrow("queued", "failed", ("poison",)),
        Arrow("queued", "cancelled", ("cancelled",), bend=-50),
    ),
)
