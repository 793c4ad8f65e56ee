"""Pricers under wine get the same memory addresses each time; a script stands in for wine's loader."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess

NOTHING, ADDR_NO_RANDOMIZE = "00000000\n", "00040000\n"  # as /proc shows them
COLD = "cat /proc/self/personality >&2"
WARM = f"""
while read -r line; do
  {COLD}
  number=$(echo "$line" | grep -o '"number": *[0-9]*')
  echo "{{$number, \\"exit_code\\": 0}}"
done
"""


@pytest.mark.parametrize("sandbox", ["protect", "off"])
def test_wine_gets_fixed_addresses_and_other_programs_random_ones(tmp_path: Path, sandbox: str) -> None:
    """Cold and warm. With random ones, wine's heap lies now and then where its loader needs a page."""
    for name, script in (("cold", COLD), ("warm", WARM)):
        loader = tmp_path / name / "wine"
        loader.parent.mkdir()
        loader.write_text(f"#!/bin/sh\n{script}\n")
        loader.chmod(0o755)
    pricers = {
        "cold": {"command": [str(tmp_path / "cold" / "wine"), "{input}"], "sandbox": sandbox},
        "warm": {"command": [str(tmp_path / "warm" / "wine")], "mode": "warm", "sandbox": sandbox},
        "other": {"command": ["sh", "{input}"], "sandbox": sandbox},
    }
    with AgentProcess(tmp_path, pricers) as agent:
        jobs = {name: agent.run(name, COLD, name) for name in pricers}
        agent.done(*jobs.values(), within_s=60)
        printed = {name: agent.reports[job]["files"]["stderr.txt"] for name, job in jobs.items()}
    assert printed == {"cold": ADDR_NO_RANDOMIZE, "warm": ADDR_NO_RANDOMIZE, "other": NOTHING}
