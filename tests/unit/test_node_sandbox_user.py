"""Pricers run as another user than root where the settings name one, and their files stay the node's."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raygrid.models import Outcome
from raygrid.node.agent import NodeAgent
from raygrid.node.sandbox.mechanisms import Mechanisms, probe
from tests.support.lone_agent import SHELL
from tests.support.sandboxed import contents, on_disk, printed, run_each, sandboxing_agent
from tests.support.warm import SPEAKS_RAW, WarmNode

USER = "www-data"
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not probe().users, reason="only root may run pricers as another user"),
    pytest.mark.skipif(
        USER not in {each.pw_name for each in pwd.getpwall()}, reason=f"this machine has no user {USER}"
    ),
]


@contextmanager
def agent_for(user: str = USER, *, open_to_all: bool = True, **settings: Any) -> Iterator[NodeAgent]:
    """An agent whose shell runs as a user, who can enter the directory around the agent's own."""
    shell = SHELL["shell"].model_copy(update={"sandbox_user": user, **settings})
    with sandboxing_agent(pricers={"shell": shell}) as agent:
        around = Path(agent._workspace.root)
        while around != Path("/var/tmp"):
            around.chmod(0o711 if open_to_all else 0o700)
            around = around.parent
        yield agent


@pytest.mark.parametrize("mode", ["protect", "strict"])
async def test_a_pricer_is_the_other_user_with_its_groups_and_variables(mode: str) -> None:
    """Nothing of root is left: no capability, no group, no home directory."""
    account = pwd.getpwnam(USER)
    with agent_for(sandbox=mode) as agent:
        [report] = await run_each(
            agent, "id -u; id -G; echo $HOME $USER; grep -c 'Cap...:.0000000000000000' /proc/self/status"
        )

        lines = printed(agent, report).splitlines()
        assert lines == [
            str(account.pw_uid),
            " ".join(map(str, sorted(os.getgrouplist(USER, account.pw_gid)))),
            f"{account.pw_dir} {USER}",
            "4",  # inheritable, permitted, effective and ambient; the bounding set stays, and gives nothing
        ]
        manifest = json.loads(contents(agent, report)["manifest.json"])
        assert "separate_user" in manifest["sandbox"]["active"]
        assert not any("as root" in each for each in manifest["sandbox"]["open"])


async def test_it_uses_its_directories_as_its_own_and_results_are_complete() -> None:
    """It reads its input, makes files, takes permissions away, and prints to streams that it opens by name."""
    script = (
        'cat "$0" | head -c 5; echo; stat -c %U . "$0"; mkdir out; echo 42 > out/price; ln out/price again; '
        'chmod 000 out; echo x > "$TMPDIR/new"; mv "$TMPDIR/new" moved; '
        "echo seen > /dev/stderr; echo y > /dev/shm/y; chmod 000 ."
    )
    with agent_for() as agent:
        reports = await run_each(agent, script, script)

        for report in reports:
            files = contents(agent, report)
            assert files["stdout.txt"].decode().splitlines()[1:] == [USER, USER]
            assert {name: files[name] for name in ("out/price", "again", "moved", "stderr.txt")} == {
                "out/price": b"42\n",
                "again": b"42\n",
                "moved": b"x\n",
                "stderr.txt": b"seen\n",
            }


async def test_what_it_leaves_is_removed() -> None:
    """Outside of the sandbox its files are root's, whatever it did to their permissions."""
    with agent_for() as agent:
        reports = await run_each(agent, "mkdir -p a/b; touch a/b/c; chmod 000 a/b a", "pwd; ls -A ..")
        place, *names = printed(agent, reports[1]).split()
        assert sorted(names) == sorted([Path(place).name, "tmp"])


async def test_a_warm_pricer_is_the_other_user_as_well() -> None:
    """It reads inputs, opens its streams by name, and serves many jobs."""
    text = "open('made', 'w').write('x'); say(json.dumps({'number': job['number'], 'exit_code': 0}) + '\\n')"
    with on_disk() as place:
        place.chmod(0o777)
        command = ("/usr/bin/python3", str(place / "program.py"))  # this Python may be in root's home directory
        with WarmNode(place, SPEAKS_RAW, command=command, sandbox_user=USER) as node:
            ended = [await node.run(f"job-{number}", f"{text}; made = os.getuid()") for number in range(3)]
            assert [each.report.exit_code for each in ended] == [0, 0, 0], ended[0].report.message
            assert node.starts.read_text() == "x"
            assert pwd.getpwuid(node.starts.stat().st_uid).pw_name == USER


@pytest.mark.parametrize(
    "script",
    ["cat /etc/shadow", "touch /root/hostile", "kill -0 1", "touch /var/lib/hostile", "cat /proc/1/environ"],
)
async def test_it_cannot_do_what_root_could(script: str) -> None:
    with agent_for() as agent:
        [report] = await run_each(agent, script)
        assert report.exit_code != 0


async def test_a_limit_and_a_cancellation_end_it() -> None:
    """The agent is root, and can end another user's processes."""
    with agent_for(timeout_s=1) as agent:
        [report] = await run_each(agent, "sleep 100 & sleep 100")
        assert report.outcome is Outcome.TIMEOUT
        [after] = await run_each(agent, f"pgrep -r R,S,D -u {USER} sleep || echo none")
        assert "none" in printed(agent, after)


async def test_a_user_that_cannot_reach_the_directory_gets_an_error_that_says_so() -> None:
    """It names the directory that is closed, and the setting."""
    with agent_for(open_to_all=False) as agent:
        [report] = await run_each(agent, "true")
        assert report.outcome is Outcome.CANNOT_START
        assert f"user '{USER}' (sandbox_user) may not enter /var/tmp/raygrid-" in str(report.message)
        assert "storage.state_dir" in str(report.message)


@pytest.mark.parametrize(("name", "why"), [("nobody-has-this-name", "there is no user"), ("root", "is root")])
async def test_a_user_that_does_not_exist_or_is_root_is_refused(name: str, why: str) -> None:
    with agent_for(name) as agent:
        [report] = await run_each(agent, "true")
        assert report.outcome is Outcome.CANNOT_START  # which does not count against the node
        assert why in str(report.message)


async def test_where_it_cannot_run_as_the_user_it_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even without `sandbox_required`: it was not meant to be root's."""
    monkeypatch.setattr("raygrid.node.sandbox.sandboxes.probe", lambda: Mechanisms(is_root=False, mounts=True))
    with agent_for() as agent:
        [report] = await run_each(agent, "true")
        assert report.outcome is Outcome.CANNOT_START
        assert f"does not run pricer 'shell' as user '{USER}' (sandbox_user)" in str(report.message)
