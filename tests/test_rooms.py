"""Which room may import which: the architecture, held against the code itself.

``python tests/test_rooms.py`` draws the picture in docs/architecture.md again.
"""

import ast
import re
from pathlib import Path

import pytest

import dinkcli

HOME = Path(dinkcli.__file__).parent
TOP = {"__init__", "__main__", "api", "engines", "errors", "estimator", "options", "planning"}
TOP |= {"results"}

# Each room, and the rooms that it may import besides `errors` and `options`.
MAY_IMPORT = {
    "processes": set(),
    "data": set(),
    "nearest": {"processes"},
    "head": {"nearest"},
    "models": {"data", "head"},
    "training": {"processes", "data", "nearest", "head", "models"},
    "assigning": {"processes", "data", "nearest", "models"},
    "insight": {"processes", "data", "nearest", "models", "training", "assigning"},
}
# What makes it fast stays inside: others see these modules of the room alone.
OPEN = {
    "nearest": {
        *("index", "sums", "probabilities", "capacity", "tempered", "prepare"),
        *("small", "hardware"),
    },
}
DOORS = {
    "api",
    "engines",
    "estimator",
    "planning",
    "cli",
    "__init__",
    "__main__",
}  # these may import every room


def modules() -> dict[str, Path]:
    """Every module of dink by its dotted name, without the leading ``dinkcli``."""
    found = {}
    for path in sorted(HOME.rglob("*.py")):
        parts = path.relative_to(HOME).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


MODULES = modules()


def imported(name: str) -> set[str]:
    """The modules of dink that a module imports, at its top or inside of functions; what only
    type checkers read does not count."""
    tree = ast.parse(MODULES[name].read_text())
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped |= {id(inner) for inner in ast.walk(node)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{name}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner.removeprefix("dinkcli.") in MODULES else node.module)
    own = {each.removeprefix("dinkcli.") for each in found if each.startswith("dinkcli")}
    return {"__init__" if each == "dinkcli" else each for each in own} & set(MODULES) - {name}


IMPORTED = {name: imported(name) for name in MODULES}


def room(name: str) -> str:
    return name.partition(".")[0]


def test_the_rooms_are_those_of_the_table():
    rooms = {room(name) for name in MODULES} - TOP
    assert rooms == set(MAY_IMPORT) | {"cli"}
    assert len(rooms) <= 10


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) not in DOORS])
def test_imports_go_down(name):
    allowed = MAY_IMPORT.get(room(name), set()) | {room(name), "errors", "__init__"}
    if room(name) not in TOP:
        allowed |= {"options", "results"}
    wrong = {each for each in IMPORTED[name] if room(each) not in allowed}
    assert not wrong, f"{name} imports {wrong}: see MAY_IMPORT"


@pytest.mark.parametrize("name", list(MODULES))
def test_what_makes_it_fast_stays_in_its_room(name):
    for each in IMPORTED[name]:
        inner = each.partition(".")[2]
        if room(each) in OPEN and room(name) != room(each):
            assert inner in OPEN[room(each)], f"{name} reaches into {each}"


@pytest.mark.parametrize("path", sorted(HOME.glob("*/**/__init__.py")), ids=str)
def test_a_room_speaks_of_modules_that_are_there(path):
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    here = {each.stem for each in path.parent.iterdir()} | set(MAY_IMPORT)
    assert text and not set(re.findall(r"``(\w+)``", text)) - here


def floors(arrows: dict[str, set[str]]) -> dict[str, int]:
    """How far above the ground each is; fails where arrows run in a circle."""
    found: dict[str, int] = {}

    def climb(name: str, below: tuple[str, ...]) -> int:
        assert name not in below, f"a circle: {' -> '.join([*below, name])}"
        if name not in found:
            found[name] = 1 + max(
                (climb(each, (*below, name)) for each in sorted(arrows[name])), default=0
            )
        return found[name]

    for name in arrows:
        climb(name, ())
    return found


def test_no_circle_and_at_most_nine_floors():
    arrows = {name: each - {"__init__"} for name, each in IMPORTED.items()}
    arrows["__init__"] = set()  # its names are imported on first use
    floors(arrows)
    assert max(floors(between_rooms()).values()) <= 9


def between_rooms() -> dict[str, set[str]]:
    """What each room imports. ``__main__`` is a doorbell and ``__init__`` a sign: no rooms."""
    rooms: dict[str, set[str]] = {}
    for name, each in IMPORTED.items():
        rooms.setdefault(room(name), set()).update(room(other) for other in each)
    left_out = {"__init__", "__main__"}
    return {name: each - {name} - left_out for name, each in rooms.items() if name not in left_out}


def picture() -> str:
    """The rooms from the top down, as Mermaid; an arrow that follows from others is left out."""
    rooms = between_rooms()
    below = {name: set(each) for name, each in rooms.items()}
    for name in sorted(rooms, key=floors(rooms).get):
        below[name] |= {deep for each in rooms[name] for deep in below[each]}
    lines = ["graph TD"]
    for name in sorted(rooms, key=floors(rooms).get, reverse=True):
        implied = {deep for each in rooms[name] for deep in below[each]}
        lines += [f"    {name} --> {each}" for each in sorted(rooms[name] - implied)]
    return "\n".join(lines)


PICTURE = re.compile(r"(?<=```mermaid\n).*?(?=\n```)", re.DOTALL)
PAGE = HOME.parent / "docs" / "architecture.md"


def test_the_picture_is_that_of_the_code():
    assert PICTURE.search(PAGE.read_text()).group() == picture()


def test_the_page_names_every_room():
    text = PAGE.read_text()
    for name in MAY_IMPORT:
        assert f"`{name}/`" in text


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_each_room_says_what_it_is(name):
    doc = ast.get_docstring(ast.parse((HOME / name / "__init__.py").read_text()))
    assert doc and len(doc.splitlines()) >= 3


if __name__ == "__main__":
    PAGE.write_text(PICTURE.sub(picture(), PAGE.read_text()))
