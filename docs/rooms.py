"""Draw the rooms of the house, floor by floor, from the imports of the source: `python docs/rooms.py`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from statistics import median

DOCS = Path(__file__).parent
PICTURE = DOCS / "_static" / "rooms.svg"
sys.path.insert(0, str(DOCS.parent / "tests"))


def arrows() -> Counter:
    """How many imports lead from each room to each other one."""
    from test_architecture import TREES, own_imports, room

    found = Counter()
    for name, others in own_imports(TREES).items():
        found.update((room(name), room(other)) for other in others if room(name) != room(other))
    return Counter({pair: n for pair, n in found.items() if "sq_imputer" not in pair})


def listing() -> str:
    """The arrows as text, which the picture holds and a test compares."""
    return "; ".join(f"{one} > {other}" for one, other in sorted(arrows()))


def draw() -> None:
    """Boxes on their floors; arrows point at what is imported, wider where there are more imports."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    from test_architecture import FLOORS, TEXTS

    plt.rcParams.update({"svg.hashsalt": "rooms", "svg.fonttype": "none", "font.family": "sans-serif"})
    lines = {name: len(text.splitlines()) for name, text in TEXTS.items()}
    rooms = {name for pair in arrows() for name in pair}
    floors = [sorted(floor & rooms) for floor in FLOORS if floor & rooms]
    at = {
        name: ((k + 1) / (len(floor) + 1) * 10 + (0.6 if number % 2 else 0), number)
        for number, floor in enumerate(floors)
        for k, name in enumerate(floor)
    }
    figure, ax = plt.subplots(figsize=(10, 9))
    for (one, other), n in arrows().items():
        ax.annotate(
            "",
            xy=(at[other][0], at[other][1] + 0.22),
            xytext=(at[one][0], at[one][1] - 0.22),
            arrowprops={"arrowstyle": "-|>", "lw": 0.4 + 0.12 * n, "color": "#0072B2", "alpha": 0.35},
        )
    for name, (x, y) in at.items():
        mine = [n for file, n in lines.items() if file.split("/")[0].removesuffix(".py") == name]
        text = f"{name}\n{len(mine)} file{'s' * (len(mine) > 1)}, {sum(mine)} lines"
        ax.text(x, y, text, ha="center", va="center", fontsize=8, bbox={"boxstyle": "round", "fc": "w", "ec": "#444"})
    ax.set(xlim=(0, 10.8), ylim=(-0.7, len(floors) - 0.3))
    largest = max(lines, key=lines.get)
    ax.set_title(
        f"{len(lines)} files, median {median(lines.values()):g} lines, largest {largest} ({lines[largest]})", fontsize=9
    )
    ax.set_axis_off()
    figure.savefig(PICTURE, metadata={"Date": None, "Description": listing()}, bbox_inches="tight")


if __name__ == "__main__":
    draw()
