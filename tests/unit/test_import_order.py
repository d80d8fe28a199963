"""Imports point one way (docs/architecture.md); the line that breaks the order is named."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

import dlfd_dist

ROOT = Path(__file__).resolve().parents[2]
BASE = {
    "errors", "access", "plain", "registry", "plugins", "factories", "libraries", "huggingface",
    "resources", "provenance", "digests", "config", "terminal", "progress", "logs", "locks",
    "run_dir", "compose", "objectives", "yaml_text", "trackers", "garbage", "__init__",
}  # fmt: skip
LAYERS: list[set[str]] = [
    BASE,
    {"runtime"},
    {"data", "models", "metrics", "transport"},
    {"synthesis"},
    {"methods"},
    {"jobs"},
    {"api", "__main__"},
]
REPORT_MAY = {
    "errors", "access", "plain", "yaml_text", "config", "run_dir", "metrics", "objectives",
    "report", "__init__",
}  # fmt: skip
EVIDENCE_MAY = {
    "errors", "access", "plain", "yaml_text", "digests", "config", "run_dir", "metrics", "evidence",
    "__init__",
}  # fmt: skip
TRACKERS_MAY = {
    "errors", "registry", "locks", "config", "run_dir", "report", "trackers", "__init__",
}  # fmt: skip
BASES = {"executor.py": {"submitit"}, "follow.py": {"ray"}}
HEAVY_IN_LAUNCH = {"torch", "ray", "submitit", "matplotlib", "numpy", "sklearn"}


ROOMS = ("children", "dry_run", "plan", "execute", "results", "search", "verbs")
"""The rooms of launch/; each may import those before it. Its other files import all of them."""
TOP = {"cli", "completion", "library", "torchrun", "__init__"}


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Return the imports of a file, at any depth."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def room_of(path: Path) -> str:
    """Return the layer name of a library file: its folder, or its own name at the top."""
    parts = path.relative_to(ROOT / "dlfd_dist").parts
    return parts[0] if len(parts) > 1 else path.stem


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, room) of every import of our library in a file, at any depth."""
    package = ["dlfd_dist", *path.relative_to(ROOT / "dlfd_dist").parts[:-1]]
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names = base + (node.module or "").split(".") if node.module else base
            if names[:1] == ["dlfd_dist"]:
                rooms = [names[1]] if len(names) > 1 else [alias.name for alias in node.names]
                for room in rooms:
                    yield node.lineno, "__init__" if room == "__version__" else room
            elif names[:1] == ["launch"]:
                yield node.lineno, "launch"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] in ("dlfd_dist", "launch"):
                    yield node.lineno, parts[1] if len(parts) > 1 else parts[0]


def allowed(room: str) -> set[str]:
    if room == "report":
        return REPORT_MAY
    if room == "evidence":
        return EVIDENCE_MAY
    if room == "trackers":
        return TRACKERS_MAY
    if room == "__init__":
        return BASE | {"api"}  # for type checkers alone, as the test below shows
    if room == "api":
        return set().union(*LAYERS[:-1], {"api", "report"})
    index = next(i for i, layer in enumerate(LAYERS) if room in layer)
    return set().union(*LAYERS[: index + 1])


LIBRARY = sorted((ROOT / "dlfd_dist").rglob("*.py"))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_library_imports_point_one_way(path: Path):
    room = room_of(path)
    broken = [
        f"{path.relative_to(ROOT)}:{line} imports {target}, which is not below {room}"
        for line, target in imported_rooms(path)
        if target not in allowed(room)
    ]
    assert not broken, "\n".join(broken)


def test_the_package_opens_its_doors_when_they_are_asked_for():
    """`import dlfd_dist` loads no torch, and nothing else in the library knows of `launch`."""
    source = (ROOT / "dlfd_dist" / "__init__.py").read_text()
    loaded = [n for n in ast.parse(source).body if isinstance(n, ast.Import | ast.ImportFrom)]
    assert [a.name for n in loaded for a in n.names] == ["importlib", "TYPE_CHECKING", "Any"]
    named = [p.name for p in LIBRARY if '"launch.' in p.read_text()]
    assert named == ["__init__.py"]


@pytest.mark.parametrize("name", dlfd_dist.DOORS)
def test_every_door_leads_to_something_that_is_documented(name: str):
    assert getattr(dlfd_dist, name).__doc__
    assert f"`{name}" in (ROOT / "docs" / "library.md").read_text()


def test_the_walk_sees_imports():
    rooms = {room for _, room in imported_rooms(ROOT / "dlfd_dist" / "jobs" / "unlearn.py")}
    assert {"config", "methods", "models", "runtime", "jobs"} <= rooms


@pytest.mark.parametrize("path", sorted((ROOT / "launch").rglob("*.py")), ids=lambda p: p.name)
def test_launch_imports_heavy_packages_inside_functions_only(path: Path):
    top = ast.parse(path.read_text()).body
    names = {a.name.split(".")[0] for n in top if isinstance(n, ast.Import) for a in n.names}
    names |= {(n.module or "").split(".")[0] for n in top if isinstance(n, ast.ImportFrom)}
    # A class of submitit or Ray is their base; nobody imports these modules but inside a function.
    names -= BASES.get(path.name, set())
    modules = [
        (n.module or "").split(".")[-1] + ".py" for n in top if isinstance(n, ast.ImportFrom)
    ]
    names |= set().union(*(BASES.get(module, set()) for module in modules))
    assert not names & HEAVY_IN_LAUNCH


LAUNCH = sorted((ROOT / "launch").rglob("*.py"))


def launch_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, room) of every import of launch in one of its files, at any depth."""
    package = list(path.relative_to(ROOT / "launch").parts[:-1])
    for node in nodes_of(path):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            names = package[: len(package) - node.level + 1] + (node.module or "").split(".")
        elif (node.module or "").split(".")[0] == "launch":
            names = (node.module or "").split(".")[1:]
        else:
            continue
        names = [name for name in names if name]
        yield from (
            [(node.lineno, names[0])]
            if names
            else [(node.lineno, alias.name) for alias in node.names]
        )


@pytest.mark.parametrize("path", LAUNCH, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_rooms_of_launch_import_one_way(path: Path):
    parts = path.relative_to(ROOT / "launch").parts
    room = parts[0].removesuffix(".py")
    if room in TOP:
        return
    # The doctor asks what the verbs ask, and no room asks the doctor.
    below = {*ROOMS, "doctor"} if room == "doctor" else set(ROOMS[: ROOMS.index(room) + 1])
    broken = [
        f"{path.relative_to(ROOT)}:{line} imports {target}, which is not below {room}"
        for line, target in launch_imports(path)
        if target not in below
    ]
    assert not broken, "\n".join(broken)


def test_no_two_files_of_launch_import_each_other():
    """Every import counts, also one inside a function or for type checkers alone."""
    edges = {path: set(_files_imported(path)) for path in LAUNCH}
    done: set[Path] = set()
    while found := {p for p in edges if p not in done and edges[p] <= done}:
        done |= found
    circles = sorted(str(p.relative_to(ROOT)) for p in edges if p not in done)
    assert not circles, f"a circle of imports: {', '.join(circles)}"


def _files_imported(path: Path) -> Iterator[Path]:
    package = ["launch", *path.relative_to(ROOT / "launch").parts[:-1]]
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = package[: len(package) - node.level + 1] + (node.module or "").split(".")
            file = ROOT.joinpath(*filter(None, names)).with_suffix(".py")
            if file.is_file():
                yield file


def test_hydra_is_known_to_compose_only():
    knowing = {path.parent.name for path in LIBRARY if {"hydra", "omegaconf"} & _third_party(path)}
    assert knowing == {"compose"}


def _third_party(path: Path) -> set[str]:
    names: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
    return names
