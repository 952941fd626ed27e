"""One-hot bases, and what a window is made of."""

from __future__ import annotations

import torch

from sq_imputer.genes.genome import coded
from sq_imputer.nn.bases import LOOKS, composition, lettering, one_hot


def bases(*letters: str) -> torch.Tensor:
    return torch.stack([torch.from_numpy(coded(one)) for one in letters])


def test_one_hot_has_a_column_per_base_and_nothing_where_it_is_unknown():
    found = one_hot(bases("ACGTN"))
    assert found.dtype == torch.float32 and found.shape == (1, 5, 4)
    assert torch.equal(found[0], torch.cat([torch.eye(4), torch.zeros(1, 4)]))


def test_composition_counts_bases_pairs_and_skews():
    found = composition(bases("GGCGNAAT", "NNNNNNNN"), torch.full((2, 8, 2), 3.0))
    assert found.shape == (2, LOOKS)
    expected = torch.tensor([4 / 7, 1 / 7, 1 / 7, (3 - 1) / 4, (2 - 1) / 3, torch.tensor(4.0).log()])
    assert torch.allclose(found[0], expected) and torch.equal(found[1, :5], torch.zeros(5))


def test_the_other_strand_has_the_opposite_skews():
    one, other = composition(bases("GGGCAAAT", "ATTTGCCC"))
    assert torch.allclose(one[:3], other[:3]) and torch.allclose(one[3:5], -other[3:5]) and one[3] > 0
    assert one[5] == 0  # no tracks


def test_lettering_counts_the_letters_of_a_text():
    text = torch.tensor([[*b"KRT5; a b", 0, 0], [0] * 11], dtype=torch.uint8)
    found = lettering(text)
    assert found.shape == (2, LOOKS) and found[1].abs().sum() == 0
    expected = torch.tensor([9.0]).log().tolist() + [5 / 9, 1 / 9, 2 / 9, 1 / 9, 3 / 9]
    torch.testing.assert_close(found[0], torch.tensor(expected))
