"""Tables of what hostile programs reached, for people."""

from __future__ import annotations

from typing import Any

from tests.hostile.eighteen import EIGHTEEN


def attack_table(report: dict[str, Any]) -> str:
    """Attacks by sandbox; those of the eighteen are marked with a star. The last column has the reason of a success."""
    names = [line["attack"] for line in next(iter(report.values()))["attacks"]]
    found = {sandbox: {line["attack"]: line for line in each["attacks"]} for sandbox, each in report.items()}
    rows = [f"{'attack':40}" + "".join(f"{sandbox:>9}" for sandbox in report)]
    for name in names:
        lines = {sandbox: found[sandbox][name] for sandbox in report if name in found[sandbox]}
        marks = "".join(f"{_mark(lines[sandbox]['succeeded']) if sandbox in lines else '?':>9}" for sandbox in report)
        open_to = [
            f"{sandbox}: {line['detail']}" for sandbox, line in lines.items() if line["succeeded"] and sandbox != "off"
        ]
        rows.append(f"{'* ' if name in EIGHTEEN else '  '}{name:38}{marks}   {'; '.join(open_to)[:90]}".rstrip())
    for title, chosen in (("all", names), ("eighteen", list(EIGHTEEN))):
        counts = "".join(f"{sum(bool(found[each][name]['succeeded']) for name in chosen):>9}" for each in report)
        rows.append(f"{f'succeeded, of {title} {len(chosen)}':40}{counts}")
    return "\n".join(rows)


def _mark(succeeded: bool | None) -> str:
    return {True: "YES", False: "-", None: "n/a"}[succeeded]


def beside_table(report: dict[str, Any]) -> str:
    """The run of hostile pricers beside good jobs."""
    rows = [f"{'good jobs':12}{'median s':>10}{'longest s':>11}{'ran again':>11}"]
    for name in ("alone", "beside"):
        waits = report[name]
        rows.append(f"{name:12}{waits['median_s']:>10.2f}{waits['longest_s']:>11.2f}{waits['again']:>11}")
    rows.append(f"largest wait in multiples of the usual: {report['worst']:.2f}; wrong: {len(report['wrong'])}")
    rows += [f"  {name:34}{state:10}{reason:16}{seconds:>6.1f} s" for name, state, reason, seconds in report["hostile"]]
    rows.append(f"the grid's processes are the same: {report['same_processes']}")
    rows.append(
        f"no daemon was left {report['daemons_ended_s']:.1f} s after the last job; after the grid: {report['left']}"
    )
    return "\n".join(rows)
