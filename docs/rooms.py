"""`python docs/rooms.py`: draws docs/rooms.svg, the rooms of the library on their floors, from what imports what. The floors are written
here, once: a room may import from those below it (tests/test_layers.py)."""

import ast
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
FLOORS = (
    ("allowance", "errors", "scattered", "threads"),
    ("files", "imported", "networks", "records"),
    ("models", "serving", "strategies"),
    ("analysis", "sources"),
    ("table",),
    ("engine", "intake"),
    ("rows", "rules", "snippets"),
    ("config", "results", "scoring"),
    ("experiment",),
    ("search",),
    ("cluster",),
    ("retraining",),
    ("report",),
    ("notebook",),
)
"""From the ground up: folders and files of `batchlab/`."""


def room_of(module: str) -> str:
    """Return the room of a module: the folder, or the file, right under `batchlab/`."""
    return module.split(".")[1]


def imports(checkout: Path = CHECKOUT) -> Iterator[tuple[str, str]]:
    """Yield, for every import within the library, the module that imports and the one that is imported; not those for types alone."""
    for path in sorted((checkout / "batchlab").rglob("*.py")):
        name = ".".join(path.relative_to(checkout).with_suffix("").parts).removesuffix(".__init__")
        for node in _running(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "batchlab":
                package = checkout.joinpath(*(node.module or "").split("."))
                inside = [f"{node.module}.{alias.name}" for alias in node.names if (package / f"{alias.name}.py").exists()]
                yield from ((name, module) for module in (inside or [node.module or ""]) if module != "batchlab")
            elif isinstance(node, ast.Import):
                yield from ((name, alias.name) for alias in node.names if alias.name.startswith("batchlab."))


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of what runs: not those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _running(node)


def wrong(checkout: Path = CHECKOUT) -> list[str]:
    """Return the imports that do not lead down, and the rooms that stand on no floor, a line each."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    found = []
    for one, other in imports(checkout):
        if one == "batchlab":  # what the package itself exports
            continue
        rooms = room_of(one), room_of(other)
        if missing := [room for room in rooms if room not in floor]:
            found.append(f"batchlab/{missing[0]} stands on no floor")
        elif rooms[0] != rooms[1] and floor[rooms[1]] >= floor[rooms[0]]:
            found.append(f"{one} imports {other}, which is not below it")
    return found


def drawn(path: Path) -> None:
    """Draw the rooms on their floors, with lines to the rooms that each needs and does not need through another one."""
    import networkx as nx
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    edges = {(room_of(one), room_of(other)) for one, other in imports() if one != "batchlab"}
    graph = nx.transitive_reduction(nx.DiGraph([edge for edge in edges if edge[0] != edge[1]]))
    with rc_context({"svg.hashsalt": "rooms", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure((10, 9))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        places = {
            room: ((place + 1) / (len(rooms) + 1) + 0.02 * (-1) ** number, number)
            for number, rooms in enumerate(FLOORS)
            for place, room in enumerate(rooms)
        }
        for one, other in graph.edges:
            axes.plot(*zip(places[one], places[other], strict=True), color="#b8c4d0", linewidth=1, zorder=1)
        for room, (across, up) in places.items():
            box = {"boxstyle": "round,pad=0.45", "facecolor": "#eef3f8", "edgecolor": "#40607f"}
            name = f"{room}/" if (CHECKOUT / "batchlab" / room).is_dir() else f"{room}.py"
            axes.text(across, up, name, ha="center", va="center", fontsize=10, color="#1c2b39", bbox=box, zorder=2)
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.7, len(FLOORS) - 0.3)
        figure.savefig(path, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    drawn(Path(__file__).with_name("rooms.svg"))
