"""Rules that the structure of the code keeps."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "raygrid"

# One file of each tier knows Ray, besides the links between them and the supervisor that starts it.
KNOW_RAY = {"transport/actor_link.py", "transport/actors.py", "transport/racks.py"}
KNOW_RAY |= {"node/actor.py", "parent/ingress.py", "local/supervisor.py", "cluster/autoscaler.py"}
KNOW_RAY |= {"drill/ray_faults.py"}
MOST_LINES = 460
MOST_LOOSE_MODULES = 4
# The OpenAPI description and the Python client give one answer of a parent the same public name.
SAME_ANSWER = {"BatchStatus", "JobStatus"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parsed() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}


def imports_of(tree: ast.Module, known: Collection[str]) -> set[str]:
    """The modules of the package that a module imports, also inside functions and for type checks."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(inner & set(known) or {node.module})
    return found & set(known)


def cycles_of(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The sets of modules that import one another: what is left when modules without importers or imports go."""
    left = {name: set(imported) for name, imported in graph.items()}
    while True:
        imported = set().union(*left.values()) if left else set()
        outer = [name for name in left if name not in imported or not left[name] & left.keys()]
        if not outer:
            break
        for name in outer:
            del left[name]
        left = {name: each & left.keys() for name, each in left.items()}
    return [sorted(left)] if left else []


def imports_ray(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name.split(".")[0] == "ray" for name in names):
            return True
    return False


def test_ray_is_known_in_few_files() -> None:
    """Ray is imported by exactly the files that are meant to know it."""
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if imports_ray(path)}
    assert found == KNOW_RAY


def test_every_module_has_a_docstring() -> None:
    """Every module of the package opens with a docstring."""
    modules = [path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts]
    silent = [str(path) for path in modules if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert silent == []


def test_no_file_is_too_long() -> None:
    """A long module usually has a second purpose."""
    long = {str(path): n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > MOST_LINES}
    assert long == {}


def test_few_modules_lie_loose_at_the_top_of_the_package() -> None:
    """All others have a package that names their purpose."""
    loose = [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    assert len(loose) <= MOST_LOOSE_MODULES, loose


def test_one_public_class_name_means_one_thing() -> None:
    """No two modules define public classes of the same name."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, tree in parsed().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    twice = {name: found for name, found in places.items() if len(found) > 1 and name not in SAME_ANSWER}
    assert twice == {}


def test_modules_do_not_import_one_another() -> None:
    """There are no import cycles, not even through imports inside functions."""
    modules = parsed()
    assert cycles_of({name: imports_of(tree, modules) for name, tree in modules.items()}) == []


def test_cycles_are_found() -> None:
    """A chain is no cycle; modules before or behind a cycle do not belong to it."""
    assert cycles_of({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert cycles_of({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [["b", "c"]]
