"""The arrows of the house: imports only point down, siblings never meet, and what is optional stays unopened."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
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
    "bench": BOTTOM | SIBLINGS | {"comm", "launch", "plan", "rounds", "report"},
    "cli": BOTTOM | SIBLINGS | {"bench", "comm", "launch", "plan", "rounds", "use", "report"},
    "__main__": BOTTOM | SIBLINGS | {"comm", "launch", "cli"},
    "__init__": {"version"},  # the rest when it is asked for
}
OPTIONAL = {"jinja2", "matplotlib", "sklearn"}
FOUNDATIONS = {"numpy", "pydantic", "torch"} | set(sys.stdlib_module_names)

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def shown(paths: Iterable[Path]) -> list[str]:
    return [path.relative_to(PACKAGE).as_posix() for path in paths]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, everywhere: bool = True) -> Iterator[str]:
    """Dotted names that a module imports, in functions too unless `everywhere` is False; not for the checker alone."""
    waiting: list[ast.AST] = [tree(path)]
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


def tops(path: Path, everywhere: bool = True) -> set[str]:
    """The packages that a module imports from, this one among them."""
    return {name.split(".")[0] for name in imports(path, everywhere)}


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


def test_imports_only_point_down() -> None:
    beyond = {path: rooms_of(path) - BELOW[room(path)] - {room(path)} for path in MODULES}
    wrong = {path.relative_to(PACKAGE).as_posix(): sorted(rooms) for path, rooms in beyond.items() if rooms}
    assert not wrong, f"these import from rooms that are not below theirs: {wrong}"


def files_of(path: Path, names: Mapping[str, Path]) -> Iterator[str]:
    """The package's own files that a module imports when it is imported itself, for the checker alone too."""
    waiting: list[ast.AST] = [tree(path)]
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


def test_the_bottom_stands_on_little() -> None:
    bottom = [path for path in MODULES if room(path) in BOTTOM]
    assert not shown(path for path in bottom if not tops(path) <= FOUNDATIONS | {"fedmpi"})


def test_only_comm_and_the_door_know_mpi() -> None:
    others = [path for path in MODULES if room(path) not in ("comm", "__main__")]
    assert not shown(path for path in others if "mpi4py" in tops(path))


def test_only_the_door_names_the_world() -> None:
    attributes = {path: {getattr(node, "attr", "") for node in ast.walk(tree(path))} for path in MODULES}
    assert not shown(path for path in MODULES if "COMM_WORLD" in attributes[path] and room(path) != "__main__")


def test_what_is_optional_is_imported_where_it_is_used() -> None:
    assert not shown(path for path in MODULES if OPTIONAL & tops(path, everywhere=False))


def test_every_module_says_what_it_is() -> None:
    first = {path: (ast.get_docstring(tree(path)) or "").split("\n\n")[0] for path in MODULES}
    assert not shown(path for path in MODULES if not first[path].endswith((".", ":")))


@pytest.mark.parametrize(("module", "torch"), [("fedmpi, fedmpi.launch, fedmpi.cli", False), ("fedmpi.rounds", True)])
def test_importing_wakes_no_mpi_and_nothing_optional(module: str, torch: bool) -> None:
    """A help text and a completed word need not wait for torch either."""
    unwanted = sorted({"mpi4py"} | OPTIONAL | (set() if torch else {"torch"}))
    code = f"import sys, {module}; print(*[name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == []
