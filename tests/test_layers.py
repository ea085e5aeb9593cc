"""The arrows of the house: imports only point down, siblings never meet, and what is optional stays unopened."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import fedmpi

PACKAGE = Path(fedmpi.__file__).parent
BOTTOM = {"cells", "cores", "flat", "flow", "hear", "job", "optim", "own", "tell", "version"}
SIBLINGS = {"aggregation", "cohort", "data", "evaluation", "models", "records", "strategies", "training"}
BELOW = {  # what a room may import, beside itself; a new room needs a place here
    **dict.fromkeys(BOTTOM, BOTTOM),
    "comm": BOTTOM,
    **dict.fromkeys(SIBLINGS, BOTTOM | {"comm"}),
    "plan": BOTTOM | SIBLINGS | {"comm"},
    "launch": BOTTOM,
    "rounds": BOTTOM | SIBLINGS | {"comm", "plan"},
    "use": BOTTOM | SIBLINGS | {"comm", "plan", "rounds"},
    "report": BOTTOM | {"records"},
    "cli": BOTTOM | SIBLINGS | {"comm", "launch", "plan", "rounds", "use", "report"},
    "__main__": BOTTOM | SIBLINGS | {"comm", "launch", "cli"},
    "__init__": {"version"},  # the rest when it is asked for
}
OPTIONAL = {"jinja2", "matplotlib", "sklearn"}
FOUNDATIONS = {"numpy", "pydantic", "torch"} | set(sys.stdlib_module_names)

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
every_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, everywhere: bool = True) -> Iterator[str]:
    """Dotted names that a module imports, in functions too unless `everywhere` is False; not for the checker alone."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import; write the whole name"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif everywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)


def rooms_of(path: Path) -> set[str]:
    """The rooms that a module imports from; `__init__` for a name that only the package itself has."""
    found = set()
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "fedmpi":
            found.add(rest[0] if rest and rest[0] in BELOW else "__init__")
    return found


def test_every_room_has_a_place() -> None:
    here = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert here - {"__pycache__"} == set(BELOW)


@every_module
def test_imports_only_point_down(path: Path) -> None:
    own = room(path)
    beyond = rooms_of(path) - BELOW[own] - {own}
    assert not beyond, f"{own} may not import {', '.join(sorted(beyond))}"


def files_of(path: Path, names: Mapping[str, Path]) -> Iterator[str]:
    """The package's own files that a module imports when it is imported itself, for the checker alone too."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (name for name in [inner if inner in names else str(node.module)] if name in names)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)


def test_no_two_files_import_each_other_in_a_circle() -> None:
    names = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in MODULES
    }
    imported = {name: set(files_of(path, names)) for name, path in names.items()}
    free = {name for name, others in imported.items() if not others}
    while free:  # a file that imports nothing is in no circle, nor one that imports only such files
        imported = {name: others - free for name, others in imported.items() if name not in free}
        free = {name for name, others in imported.items() if not others}
    assert not imported, f"these import each other, or one that does: {', '.join(sorted(imported))}"


@every_module
def test_the_bottom_stands_on_little(path: Path) -> None:
    if room(path) in BOTTOM:
        outside = {name.split(".")[0] for name in imports(path)} - {"fedmpi"}
        assert outside <= FOUNDATIONS


@every_module
def test_only_comm_and_the_door_know_mpi(path: Path) -> None:
    if room(path) not in ("comm", "__main__"):
        assert "mpi4py" not in {name.split(".")[0] for name in imports(path)}


@every_module
def test_only_the_door_and_comm_name_the_world(path: Path) -> None:
    names = {node.attr for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)}
    assert "COMM_WORLD" not in names or room(path) == "__main__"


@every_module
def test_what_is_optional_is_imported_where_it_is_used(path: Path) -> None:
    assert not OPTIONAL & {name.split(".")[0] for name in imports(path, everywhere=False)}


@every_module
def test_every_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert docstring.split("\n\n")[0].endswith((".", ":"))


@pytest.mark.parametrize("module", ["fedmpi", "fedmpi.cli", "fedmpi.rounds", "fedmpi.launch"])
def test_importing_wakes_no_mpi_and_nothing_optional(module: str) -> None:
    unwanted = sorted({"mpi4py"} | OPTIONAL)
    code = f"import sys, {module}; print(*[name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == []


def test_the_package_alone_needs_no_torch() -> None:
    code = "import sys, fedmpi; fedmpi.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
