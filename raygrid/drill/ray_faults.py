"""Injects faults into a running grid through its Ray cluster: `python -m raygrid.drill.ray_faults`.

The only file of the drills that imports Ray. It runs as a separate process, so that the drill survives the head's
death. Targets are found in Ray's table of actors. Before the fault, each target machine gets a `MachineFaults` actor,
so that the fault itself is one call that needs no head.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import ray
from ray._private import state
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raygrid.drill.injector import FaultTarget, GridSnapshot, Place, RunningCandidate
from raygrid.drill.machine_faults import MachineFaults
from raygrid.errors import RaygridError, UnavailableError
from raygrid.transport.racks import live_nodes, machines, node_names

ANSWER_S = 20.0
LEADS_S = 3.0
PARENT = re.compile(r"ServeReplica:raygrid(-\d+)?:parent")  # with a number after a `raygrid deploy`
NAMESPACE = "raygrid-"
_NOT_GRIDS = {"raygrid-supervisor", "raygrid-deploy", "raygrid-drill"}


class Faults:
    """The requests that this process answers, one method each."""

    def __init__(self) -> None:
        self._faults: dict[str, Any] = {}
        self._armed: list[Any] = []

    def look(self) -> dict[str, Any]:
        """A `GridSnapshot`, as a dict."""
        nodes = live_nodes()
        names = {node_id: name for name, node_id in node_names(nodes).items()}
        actors = _actors()
        agents = {each["Address"]["NodeID"] for each in actors if each["Name"].startswith("agent:")}
        groups = _groups(actors, agents, nodes)
        here = ray.get_runtime_context().get_node_id()
        head = _head(nodes)
        spared = {
            head["NodeID"]: "the head runs there",
            here: "this drill runs there; start the drill on another machine, such as the head",
        }
        places = [
            Place(
                names[each["NodeID"]],
                groups.get(each["NodeID"]),
                each["NodeManagerAddress"],
                each["NodeID"] in agents,
                spared.get(each["NodeID"]) if each["NodeID"] == head["NodeID"] or machines(nodes) > 1 else None,
            )
            for each in nodes
        ]
        return asdict(
            GridSnapshot(
                tuple(places),
                tuple(_candidates(actors, names)),
                tuple(names[each["Address"]["NodeID"]] for each in _parents(actors)),
                ray.get_runtime_context().gcs_address,
                self._ask(self._faults_on(names[head["NodeID"]], head["NodeID"]).why_head_must_live.remote()),
            )
        )

    def aim(self, aim: Mapping[str, Any]) -> dict[str, Any]:
        """Prepare the fault on the target machines; returns what will be hit, in words."""
        aimed = FaultTarget(**{**aim, "places": tuple(aim["places"])})
        ids = node_names(live_nodes())
        self._armed = []
        hit: list[str] = []
        for place, pids in self._targets(aimed, ids).items():
            faults = self._faults_on(place, ids[place])
            if aimed.what == "head":
                self._ask(faults.target_head.remote())
            elif aimed.what == "node":
                self._ask(faults.target_machine.remote(aimed.freeze_s))
            else:
                self._ask(faults.target_processes.remote(pids, aimed.freeze_s))
            self._armed.append(faults)
            numbers = ", ".join(map(str, pids))
            hit.append(f"{place} (process {numbers})" if pids else place)
        verb = f"freeze for {aimed.freeze_s:g} s" if aimed.freeze_s else "kill"
        what = {"leader": f"the leader of {aimed.group}", "node": "everything"}.get(aimed.what, f"the {aimed.what}")
        return {"what": f"{verb} {what} on {', '.join(hit)}"}

    def inject(self) -> dict[str, Any]:
        """Inject the fault on all target machines at once."""
        hits: list[int] = ray.get([faults.inject.remote() for faults in self._armed], timeout=ANSWER_S)
        return {"hit": sum(hits)}

    def heal(self) -> dict[str, Any]:
        """Thaw all frozen processes."""
        ray.get([faults.thaw.remote() for faults in self._armed], timeout=ANSWER_S)
        return {}

    def _targets(self, aim: FaultTarget, ids: Mapping[str, str]) -> dict[str, list[int]]:
        """The target processes by machine."""
        names = {node_id: name for name, node_id in ids.items()}
        if aim.what == "head":
            return {names[_head(live_nodes())["NodeID"]]: []}
        if gone := [place for place in aim.places if place not in ids]:
            raise UnavailableError(f"{', '.join(gone)} has left the cluster")
        if aim.what == "node":
            return {place: [] for place in aim.places}
        actors = _actors()
        if aim.what == "leader":
            leading = [each for each in actors if _group_of(each["Name"]) == aim.group and _leads(each["Name"])]
            if not leading:
                raise UnavailableError(f"no candidate of group {aim.group} leads at the moment")
            return {names[leading[0]["Address"]["NodeID"]]: [leading[0]["Pid"]]}
        [place] = aim.places
        if aim.what == "agent":
            found = [each for each in actors if each["Name"] == f"agent:{place}:{ids[place]}"]
        else:
            found = [each for each in _parents(actors) if each["Address"]["NodeID"] == ids[place]]
        pids = [int(each["Pid"]) for each in found]
        if not pids:
            raise UnavailableError(f"no {aim.what} runs on {place} at the moment")
        return {place: pids[:1]}

    def _faults_on(self, place: str, node_id: str) -> Any:
        """The actor that injects faults on a machine; created at the first use."""
        if place not in self._faults:
            options = {
                "num_cpus": 0,
                "max_restarts": 0,
                "enable_task_events": False,
                "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
            }
            self._faults[place] = ray.remote(MachineFaults).options(**options).remote()
        return self._faults[place]

    @staticmethod
    def _ask(reference: Any) -> Any:
        try:
            return ray.get(reference, timeout=ANSWER_S)
        except RayTaskError as error:
            raise UnavailableError(str(error.cause)) from error


def _actors() -> list[dict[str, Any]]:
    """The living actors in Ray's table."""
    table: dict[str, dict[str, Any]] = state.actors(actor_state_name="ALIVE")
    return list(table.values())


def _parents(actors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in actors if PARENT.fullmatch(each["ActorClassName"])]


def _head(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    return next(node for node in nodes if "node:__internal_head__" in node["Resources"])


def _group_of(actor: str) -> str | None:
    """The group of a candidate, by its actor name `leader:GROUP` or `leader:GROUP:NODE`; None for other actors."""
    words = actor.split(":")
    return words[1] if words[0] == "leader" and len(words) > 1 else None


def _groups(actors: list[dict[str, Any]], agents: set[str], nodes: list[dict[str, Any]]) -> dict[str, str]:
    """The group of each machine with an agent: its custom resource that has the name of a candidate's group."""
    known = {group for each in actors if (group := _group_of(each["Name"]))}
    return {
        node["NodeID"]: here[0]
        for node in nodes
        if node["NodeID"] in agents and (here := sorted(known & node["Resources"].keys()))
    }


def _candidates(actors: list[dict[str, Any]], names: Mapping[str, str]) -> list[RunningCandidate]:
    return [
        RunningCandidate(group, names[each["Address"]["NodeID"]], _leads(each["Name"]))
        for each in actors
        if (group := _group_of(each["Name"])) and each["Address"]["NodeID"] in names
    ]


def _leads(name: str) -> bool:
    """Whether a candidate leads; one that does not raises an error."""
    try:
        candidate: Any = ray.get_actor(name, _namespace(name))
        ray.get(candidate.changes.remote("", 0, 0.0), timeout=LEADS_S)
    except (RayError, GetTimeoutError, ValueError):
        return False
    return True


def _namespace(actor: str) -> str:
    """The namespace of an actor's grid."""
    named: Any = ray.util.list_named_actors(all_namespaces=True)
    found = {each["namespace"] for each in named if each["name"] == actor and each["namespace"].startswith(NAMESPACE)}
    found -= _NOT_GRIDS
    if len(found) != 1:
        raise ValueError(f"{actor} is in {len(found)} grids of this cluster")
    return str(found.pop())


def _join() -> None:
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        from raygrid.parent.ingress import cluster_address  # noqa: PLC0415 - brings Serve

        address = cluster_address()
    ray.init(address, namespace="raygrid-drill", log_to_driver=False, logging_level=logging.ERROR)


def main() -> int:
    """Answer the requests on standard input until it ends."""
    # What Ray prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    faults: Faults | None = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            if faults is None:
                _join()
                faults = Faults()
            if question["do"] == "aim":
                answer = faults.aim(question["aim"])
            else:
                answer = {"look": faults.look, "inject": faults.inject, "heal": faults.heal}[question["do"]]()
        except (RaygridError, RayError, OSError, ValueError, RuntimeError) as error:
            answer = {"error": str(error) or repr(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
