"""Neighbors of several models are counted by one bank."""

from __future__ import annotations

import numpy as np
import torch

from sq_imputer.contract import Prediction
from sq_imputer.runs.retrieved import BANK, pool


def bank(*spots: str, section: str = "A") -> dict[str, np.ndarray]:
    text = {"section": [section] * len(spots), "patient": ["P"] * len(spots), "spot": list(spots)}
    place = {"x_um": np.array([float(ord(spot)) for spot in spots]), "y_um": np.zeros(len(spots))}
    return {name: np.array(values, dtype=object) for name, values in text.items()} | place


def made_of(*rows: list[int]) -> Prediction:
    neighbors = torch.tensor(rows)
    return Prediction(torch.zeros(len(rows), 1), neighbors=neighbors, weights=(neighbors >= 0).float())


def test_a_spot_of_two_banks_is_one_entry_and_what_was_not_retrieved_is_left_out() -> None:
    said = [made_of([3, 0], [0, -1]), made_of([1, 2])]
    banks = [bank("a", "b", "c", "d"), bank("b", "d", "e")]
    renumbered, table = pool(said, banks)
    assert sorted(table["spot"]) == ["a", "d", "e"] and list(table) == list(BANK)
    assert table["x_um"].tolist() == [ord(spot) for spot in table["spot"]]
    for before, after, own in zip(said, renumbered, banks, strict=True):
        assert after.neighbors.dtype == torch.int64 and torch.equal(after.weights, before.weights)
        for row, rows in zip(before.neighbors.tolist(), after.neighbors.tolist(), strict=True):
            assert [own["spot"][i] if i >= 0 else "" for i in row] == [table["spot"][i] if i >= 0 else "" for i in rows]
    assert said[1].neighbors.tolist() == [[1, 2]]  # what was passed is not changed


def test_lists_of_different_lengths_are_filled_up() -> None:
    """A model may choose the number of neighbors, and then every fold has its own."""
    said = [made_of([1, 0, 2]), made_of([0])]
    (three, one), table = pool(said, [bank("a", "b", "c"), bank("d")])
    assert one.neighbors[0, 1:].tolist() == [-1, -1] and one.weights.tolist() == [[1, 0, 0]]
    assert [table["spot"][i] for i in three.neighbors[0]] == ["b", "a", "c"]
    assert table["spot"][one.neighbors[0, 0]] == "d" and one.weights.dtype == torch.float32


def test_spots_of_one_name_in_two_sections_are_two_entries() -> None:
    renumbered, table = pool([made_of([0]), made_of([0])], [bank("a"), bank("a", section="B")])
    assert table["section"].tolist() == ["A", "B"]
    assert [said.neighbors.tolist() for said in renumbered] == [[[0]], [[1]]]


def test_nothing_retrieved_is_an_empty_table() -> None:
    renumbered, table = pool([made_of([-1, -1])], [bank("a")])
    assert renumbered[0].neighbors.tolist() == [[-1, -1]] and {len(values) for values in table.values()} == {0}
