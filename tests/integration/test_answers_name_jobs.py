"""Every answer about a job or a batch names it in a header, problems included."""

from __future__ import annotations

from pathlib import Path

from tests.support.small_grid import SmallGrid

JOB, BATCH = "Raygrid-Job-Id", "Raygrid-Batch-Id"


async def test_every_answer_about_a_job_names_the_job(tmp_path: Path) -> None:
    """Submits, status, result, failure, an unknown job and a cancelled one: each names the job that was asked about."""
    async with SmallGrid(tmp_path) as grid:
        answers = [
            await grid.submit("a", "echo 1"),
            await grid.submit("a", "echo 1", wait=0),
            await grid.http.post(
                "/submit", files={"file": ("x.sh", b"echo 1")}, data={"jobId": "a", "pricer": "shell"}
            ),
            await grid.http.get("/status/a"),
            await grid.http.get("/result/a"),
            await grid.submit("a", "echo another input"),
            await grid.http.delete("/jobs/a"),
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 202, 200, 200, 409, 202]
        assert [answer.headers.get(JOB) for answer in answers] == ["a"] * len(answers)

        for answer, status in (
            (await grid.submit("bad", "exit 3"), 422),
            (await grid.http.get("/result/bad"), 422),
            (await grid.http.get("/status/bad", params={"wait": "x"}), 422),
            (await grid.http.get("/result/bad", params={"wait": "x"}), 422),
        ):
            assert (answer.status_code, answer.headers.get(JOB)) == (status, "bad")
        unknown = await grid.http.get("/result/unknown")
        assert (unknown.status_code, unknown.headers.get(JOB)) == (404, "unknown")
        no_id = await grid.http.get("/result/%E3%81%82")
        assert (no_id.status_code, no_id.headers.get(JOB)) == (422, None)


async def test_every_answer_about_a_batch_names_the_batch(tmp_path: Path) -> None:
    """Submit, counts, results, cancel, and a batch that is unknown."""
    async with SmallGrid(tmp_path) as grid:
        answers = [
            await grid.http.post("/batches", data={"batchId": "b", "pricer": "cat"}, files={"b-1": ("1", b"x")}),
            await grid.http.get("/batches/b"),
            await grid.http.get("/batches/b/results", params={"wait": 30}),
            await grid.http.delete("/batches/b"),
        ]
        assert [answer.status_code for answer in answers] == [202, 200, 200, 202]
        assert [answer.headers.get(BATCH) for answer in answers] == ["b"] * 4
        unknown = await grid.http.get("/batches/unknown")
        assert (unknown.status_code, unknown.headers.get(BATCH)) == (404, "unknown")
