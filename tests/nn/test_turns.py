from __future__ import annotations

import itertools

import pytest
import torch

from sq_imputer.nn import drawn
from sq_imputer.nn.turns import STILL, Turn, any_turn

ALL = [Turn(*flags) for flags in itertools.product((False, True), repeat=3)]
PICTURE = torch.arange(25.0).view(1, 5, 5)


def plane(axial: torch.Tensor, hexagonal: int) -> torch.Tensor:
    """Where axial steps lead, `(S, 2)` as (x, y)."""
    along, beside = axial.double().unbind(1)
    found = torch.stack([along + beside / 2, beside * 3**0.5 / 2], dim=1)
    return found if hexagonal == 0 else found.flip(1)


def test_there_are_eight_and_they_differ() -> None:
    assert len({tuple(turn.picture(PICTURE).flatten().tolist()) for turn in ALL}) == 8
    assert STILL.picture(PICTURE) is PICTURE


@pytest.mark.parametrize("turn", ALL)
def test_a_step_leads_where_the_pixel_went(turn) -> None:
    steps = torch.cartesian_prod(torch.arange(5), torch.arange(5)) - 2
    moved = turn.steps(steps)
    for (x, y), (to_x, to_y) in zip(steps.tolist(), moved.tolist(), strict=True):
        assert turn.picture(PICTURE)[0, to_y + 2, to_x + 2] == PICTURE[0, y + 2, x + 2]


@pytest.mark.parametrize("turn", ALL)
def test_cells_of_a_picture_turn_with_it(turn) -> None:
    cells = torch.nn.functional.avg_pool2d(torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)), 4)
    flat = cells.flatten(2).transpose(1, 2)
    torch.testing.assert_close(turn.cells(flat), turn.picture(cells).flatten(2).transpose(1, 2))


@pytest.mark.parametrize("hexagonal", [0, 1])
@pytest.mark.parametrize("turn", ALL)
def test_on_a_hexagonal_lattice_steps_are_mirrored_in_the_plane(turn, hexagonal) -> None:
    steps = torch.tensor([[1, 0], [0, 1], [1, -1], [-1, 0], [0, -1], [-1, 1], [2, -1]])
    mirror = torch.tensor([-1.0 if turn.flip_x else 1.0, -1.0 if turn.flip_y else 1.0])
    moved = turn.steps(steps, hexagonal)
    torch.testing.assert_close(plane(moved, hexagonal), plane(steps, hexagonal) * mirror.double())


def test_turns_are_drawn_in_training_alone_and_by_the_generator_of_the_fit() -> None:
    def some() -> list[Turn]:
        generator = torch.Generator().manual_seed(0)
        with drawn.drawn_by(lambda device: generator):
            return [any_turn(True) for _ in range(60)]

    assert set(some()) == set(ALL) and some() == some()
    assert any_turn(False) == STILL
