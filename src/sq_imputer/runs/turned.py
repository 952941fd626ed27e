"""Mirror images, quarter turns, small turns and scales, by which shapes may have come to lie wrong on an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MIRRORS = {
    "mirrored along x": (False, -1, 1),
    "mirrored along y": (False, 1, -1),
    "turned by 180 degrees": (False, -1, -1),
    "x and y swapped": (True, 1, 1),
    "turned by 90 degrees": (True, -1, 1),
    "turned by 270 degrees": (True, 1, -1),
    "x and y swapped and both mirrored": (True, -1, -1),
}
STEPS = {"rotation": (3.0, 1.0, 0.5), "scale": (0.05, 0.0125)}  # degrees; natural logarithm
REACH = {"rotation": 4, "scale": 5}  # steps to either side, first; then two
ABOUT = {"rotation": "turned by {:.3g} degrees", "scale": "scaled by {:.3g}"}


@dataclass(frozen=True, eq=False)
class Turn:
    """A map of places in µm, `(3, 3)`, and what it is called."""

    name: str
    matrix: np.ndarray

    def __call__(self, xy_um: np.ndarray) -> np.ndarray:
        """Places `(n, 2)` after it."""
        return xy_um @ self.matrix[:2, :2].T + self.matrix[:2, 2]

    def then(self, name: str, matrix: np.ndarray) -> Turn:
        """One map after another."""
        return Turn(name if self.name == AS_IT_IS.name else f"{self.name}, {name}", matrix @ self.matrix)


AS_IT_IS = Turn("as it is", np.eye(3))


def mirrored(box_um: np.ndarray) -> Iterator[Turn]:
    """The seven ways in which axes can be swapped and mirrored in the box `(2, 2)` of an image, low and high."""
    low, high = box_um
    for name, (swap, x, y) in MIRRORS.items():
        linear = np.array([[0.0, 1.0], [1.0, 0.0]]) if swap else np.eye(2)
        size = (linear @ (high - low)) if swap else high - low
        signs = np.array([x, y])
        matrix = np.eye(3)
        matrix[:2, :2] = np.diag(signs) @ linear
        # about the box: what was swapped fills one that is swapped as well
        matrix[:2, 2] = low + np.where(signs < 0, size, 0) - matrix[:2, :2] @ low
        yield Turn(name, matrix)


def around(turn: Turn, kind: str, value: float, middle_um: np.ndarray) -> Turn:
    """A turn by some degrees, or a scale whose logarithm is given, about a point, after another turn."""
    if kind == "rotation":
        cos, sin = np.cos(np.radians(value)), np.sin(np.radians(value))
        linear, shown = np.array([[cos, -sin], [sin, cos]]), value
    else:
        linear, shown = np.exp(value) * np.eye(2), float(np.exp(value))
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = middle_um - linear @ middle_um
    return turn.then(ABOUT[kind].format(shown), matrix)
