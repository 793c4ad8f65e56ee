"""What the structure of the code promises."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "raygrid"

# One file of each tier knows Ray, besides the links between them and the supervisor that starts it.
KNOW_RAY = {"transport/actor_link.py", "transport/actors.py", "transport/racks.py"}
KNOW_RAY |= {"node/actor.py", "parent/ingress.py", "local/supervisor.py", "cluster/autoscaler.py"}
KNOW_RAY |= {"drill/ray_faults.py"}
MOST_LINES = 500


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


def test_every_module_says_what_it_is_for() -> None:
    """Every module of the package opens with a docstring."""
    modules = [path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts]
    silent = [str(path) for path in modules if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert silent == []


def test_no_file_grows_into_a_second_purpose() -> None:
    """No module is longer than a reader takes in at a sitting."""
    long = {str(path): n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > MOST_LINES}
    assert long == {}
