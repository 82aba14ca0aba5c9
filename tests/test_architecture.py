"""The house keeps its laws: floors, rooms, one door for each foreign library, small modules and functions."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.floor_plan import FOREIGN_DOORS, GROUND, HALL, PLAN, ROOF

PACKAGE = Path(__file__).resolve().parent.parent / "evalrun"

ROOM_FLOOR, HALL_FLOOR, ROOF_FLOOR = 10, 20, 30

LATE_IMPORT_ROOMS = ("cli", "pipeline", "opened_endpoints", "closing", "stale_rows", "api", "__init__")
"""Where imports inside functions are allowed: they keep start-up short."""

LATE_IMPORTS_WITH_REASON = {
    "analysis.graders.build": "jsonschema takes 0.08 s, jsonpath-rfc9535 0.06 s, subprocess 0.02 s; few jobs need them",
    "analysis.graders.prepare": "jsonschema takes 0.08 s, and few jobs have a schema to grade by",
    "analysis.graders.transform": "jsonpath-rfc9535 takes 0.06 s, and few jobs have a path to follow",
    "analysis.stats": "scipy and numpy take half a second, and only exact intervals and repeats need them",
    "job.parquet_reader": "polars takes 0.3 s and only Parquet datasets need it",
    "job.price_library": "genai-prices is an extra, takes half a second, and most jobs name their prices",
}
"""Late imports elsewhere, each with its reason; of evalrun's own modules only one of the same room."""

MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 60


@cache
def list_modules() -> tuple[str, ...]:
    """Return every module of the package, dotted, without the package's own name."""
    paths = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    return tuple(".".join(path.with_suffix("").parts) for path in paths)


@cache
def parse(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse((PACKAGE / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))


def find_imports(module: str, *, late: bool | None = None) -> Iterator[str]:
    """Yield what a module imports, dotted; `late` narrows to imports inside or outside functions.

    Imports for type checkers only do not count: nothing flows along them when the program runs.
    """
    yield from _walk_imports(parse(module), is_inside=False, late=late)


def _walk_imports(node: ast.AST, *, is_inside: bool, late: bool | None) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for other in child.orelse:
                yield from _walk_imports(ast.Module([other], []), is_inside=is_inside, late=late)
            continue
        if late is None or late is is_inside:
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module is not None:
                yield from _name_imported(child)
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from _walk_imports(child, is_inside=is_inside or is_function, late=late)


def _name_imported(node: ast.ImportFrom) -> Iterator[str]:
    """Yield the modules of a from-import: `from evalrun.job import plan` imports evalrun.job.plan.

    A room (`from evalrun import store`) counts as its `__init__`, and a public name (`from evalrun import run`) as the
    roof that it is loaded from.
    """
    modules = set(list_modules())
    for alias in node.names:
        dotted = f"{node.module}.{alias.name}"
        own = dotted.removeprefix("evalrun.")
        if own in modules or f"{own}.__init__" in modules:
            yield dotted
        elif node.module == "evalrun" and alias.name != "__version__":
            yield "evalrun.api"
        else:
            yield str(node.module)


def find_own_imports(module: str, *, late: bool | None = None) -> set[str]:
    """Return the modules of the package that a module imports."""
    own = (name for name in find_imports(module, late=late) if name == "evalrun" or name.startswith("evalrun."))
    modules = {name.removeprefix("evalrun").removeprefix(".") or "__init__" for name in own}
    return {name if name in set(list_modules()) else f"{name}.__init__" for name in modules}


def find_room(module: str) -> str:
    """Return the room, or the ground, hall or roof module, that a module belongs to."""
    return module.split(".")[0]


def find_floor(module: str) -> int:
    """Return how high a module stands; a module imports from lower floors only."""
    room = find_room(module)
    if room in GROUND:
        return GROUND[room]
    if room in HALL:
        return HALL_FLOOR + HALL[room]
    return ROOF_FLOOR if room in ROOF else ROOM_FLOOR


def test_every_module_stands_on_the_plan() -> None:
    """A module that is not on the floor plan, or a planned one that is gone, fails here."""
    planned = {f"{room}.{name}" for room, names in PLAN.items() for name in names}
    planned |= {*GROUND, *HALL, *(name for name in ROOF if name != "cli")}
    assert set(list_modules()) == planned


@pytest.mark.parametrize("module", list_modules())
def test_module_imports_from_lower_floors_only(module: str) -> None:
    """Law 1: nothing flows back."""
    if module == "__init__":
        return  # Public names are loaded from the roof, late; test_public_names covers them.
    higher = {
        other
        for other in find_own_imports(module)
        if other != "__init__"
        and find_floor(other) >= find_floor(module)
        and find_room(other) != find_room(module)
        and not (find_floor(other) == find_floor(module) == ROOF_FLOOR and module == "__main__")
    }
    assert higher == set()


@pytest.mark.parametrize("room", [room for room in PLAN if room != "cli"])
def test_room_does_not_know_another_room(room: str) -> None:
    """Law 2: no doors between rooms."""
    others = set(PLAN) - {room, "cli"}
    known = {other for module in list_modules() if find_room(module) == room for other in find_own_imports(module)}
    assert {other for other in known if find_room(other) in others} == set()


def test_imports_form_no_cycle() -> None:
    """The import graph of the whole package has an order."""
    assert count_cycles() == 0


def count_cycles() -> int:
    """Return how many modules would have to lose an import before the rest has an order."""
    graph = {module: find_own_imports(module) - {module, "__init__"} for module in list_modules()}
    n_cycles = 0
    while True:
        try:
            list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            n_cycles += 1
            del graph[error.args[1][0]]
        else:
            return n_cycles


@pytest.mark.parametrize("module", list_modules())
def test_foreign_library_comes_through_its_door(module: str) -> None:
    """Each foreign library is imported in the modules named for it and nowhere else."""
    foreign = {name.split(".")[0] for name in find_imports(module)} - set(sys.stdlib_module_names) - {"evalrun"}
    homes = {module, find_room(module)}
    assert {name for name in foreign if not homes & set(FOREIGN_DOORS.get(name, ()))} == set()


def test_every_door_is_used() -> None:
    """A door that nobody uses is taken off the plan."""
    used = {
        (name.split(".")[0], home)
        for module in list_modules()
        for name in find_imports(module)
        for home in (module, find_room(module))
    }
    assert [(name, home) for name, homes in FOREIGN_DOORS.items() for home in homes if (name, home) not in used] == []


@pytest.mark.parametrize("module", list_modules())
def test_late_import_only_where_start_up_time_asks_for_it(module: str) -> None:
    """Imports inside functions stand in the roof and the hall only, and never hide a cycle."""
    if find_room(module) in LATE_IMPORT_ROOMS:
        return
    late = set(find_imports(module, late=True))
    if module in LATE_IMPORTS_WITH_REASON:
        home = f"evalrun.{find_room(module)}."
        late = {name for name in late if name.startswith("evalrun") and not name.startswith(home)}
    assert late == set()


@pytest.mark.parametrize("module", list_modules())
def test_module_and_its_functions_stay_small(module: str) -> None:
    """No module passes 500 lines, no function 60 without its docstring."""
    text = (PACKAGE / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
    too_long = [f"{name}: {lines} lines" for name, lines in measure_functions(module) if lines > MAX_FUNCTION_LINES]
    assert (text.count("\n") <= MAX_MODULE_LINES, too_long) == (True, [])


def measure_functions(module: str) -> Iterator[tuple[str, int]]:
    """Yield each function's name and its lines without the docstring."""
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield node.name, lines - (docstring.count("\n") + 1 if docstring else 0)


@pytest.mark.parametrize("module", list_modules())
def test_module_is_imported_by_statement(module: str) -> None:
    """No import hides in a call: only the command line and the public names load modules by name."""
    if module in {"cli.main", "__init__"}:
        return
    names = {node.attr for node in ast.walk(parse(module)) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(parse(module)) if isinstance(node, ast.Name)}
    assert names & {"import_module", "__import__"} == set()


def test_no_module_is_named_like_a_shelf_for_leftovers() -> None:
    """A module is named for what it does, never `utils` or its kin."""
    names = {part for module in list_modules() for part in module.split(".")}
    assert names & {"utils", "helpers", "common", "misc", "base", "manager"} == set()


def test_mocks_are_not_used() -> None:
    """No test replaces our own code by a mock."""
    tests = Path(__file__).resolve().parent
    word = "unittest" + ".mock"
    assert [str(path) for path in tests.rglob("*.py") if word in path.read_text(encoding="utf-8")] == []


if __name__ == "__main__":  # `python -m tests.test_architecture` prints the figures.
    sizes = {
        module: (PACKAGE / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8").count("\n")
        for module in list_modules()
    }
    longest = max((lines, f"{module}.{name}") for module in sizes for name, lines in measure_functions(module))
    largest = max(sizes, key=lambda module: sizes[module])
    sys.stdout.write(
        f"modules {len(sizes)}, lines {sum(sizes.values())}, largest {largest} ({sizes[largest]} lines), "
        f"longest function {longest[1]} ({longest[0]} lines), cycles {count_cycles()}\n"
    )
