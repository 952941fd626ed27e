from __future__ import annotations

import torch

from sq_imputer.encoders._windows import Boxes, summed, window_means


def test_means_weigh_cells_by_how_much_of_them_lies_in_the_window():
    maps = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0))
    low, high = torch.tensor([[1.5, 0.25]]).double(), torch.tensor([[4.0, 6.5]]).double()
    found = window_means(summed([maps]), Boxes(torch.tensor([1]), low, high), 1)
    rows, columns = torch.tensor([0, 0.5, 1, 1, 0]), torch.tensor([0.75, 1, 1, 1, 1, 1, 0.5])
    weights = rows[:, None] * columns
    torch.testing.assert_close(found.float(), ((maps[1] * weights).sum() / weights.sum()).view(1, 1))


def test_windows_may_be_a_part_of_a_cell_and_reach_to_the_rim():
    maps = torch.arange(12.0).view(1, 3, 4)
    low, high = torch.tensor([[8.0, 9.0], [0.0, 0.0]]).double(), torch.tensor([[9.0, 11.0], [24.0, 32.0]]).double()
    found = window_means(summed([maps, 2 * maps]), Boxes(torch.tensor([0, 0]), low, high), 8)
    torch.testing.assert_close(found.float(), torch.tensor([[5.0, 10.0], [5.5, 11.0]]))


def test_parts_lie_where_their_shares_say():
    box = Boxes(torch.tensor([3]), torch.tensor([[10.0, 20.0]]), torch.tensor([[20.0, 40.0]]))
    parts = box.parts(torch.tensor([[0.0, 0.5]]), torch.tensor([[0.25, 1.0]]))
    assert parts.low.tolist() == [[10, 30]] and parts.high.tolist() == [[12.5, 40]] and parts.image.tolist() == [3]
