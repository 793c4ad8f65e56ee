"""The `ssh` of `deploy/ssh`: it checks host keys, whatever Ray's launcher asks for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
STRICT = PROJECT / "deploy/ssh"
FAKE = '#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done\n'


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A directory with a program `ssh` that prints its arguments."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(FAKE)
    (tmp_path / "bin/ssh").chmod(0o755)
    return tmp_path / "bin"


def asked(fake: Path, *words: str, **environment: str) -> list[str]:
    """The arguments that the next `ssh` on the path gets."""
    path = f"{STRICT}:{fake}:/usr/bin:/bin"
    ran = subprocess.run(
        ["ssh", *words],
        env={"PATH": path, "HOME": "/home/ops", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.splitlines()


def test_host_keys_are_checked_though_the_caller_turns_that_off(fake: Path) -> None:
    """The first value of an option counts; the caller's own are changed, too."""
    words = asked(
        fake, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i", "key", "ops@10.0.0.1", "a b"
    )
    assert words[:4] == ["-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=/home/ops/.ssh/known_hosts"]
    assert not [word for word in words if word in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")]
    assert words[-3:] == ["key", "ops@10.0.0.1", "a b"]


def test_the_file_of_known_hosts_can_be_chosen(fake: Path) -> None:
    words = asked(fake, "host", RAYGRID_KNOWN_HOSTS="/opt/my hosts")
    assert words == ["-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=/opt/my hosts", "host"]


def test_it_never_calls_itself(tmp_path: Path) -> None:
    """If there is no other ssh on the path, it ends with an error."""
    (tmp_path / "link").symlink_to(STRICT)
    path = f"{STRICT}:{tmp_path / 'link'}"
    ran = subprocess.run(
        ["/bin/sh", str(STRICT / "ssh"), "host"],
        env={"PATH": f"{path}:{tmp_path}", "HOME": "/"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 127
