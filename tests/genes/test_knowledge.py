"""What is known of a gene is found by any of its names, is never guessed, and is said where it is missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from knowing import P53

import sq_imputer as sqi
from sq_imputer import GeneKnowledge


def two_d(*names: str, **more) -> GeneKnowledge:
    return GeneKnowledge(names, np.arange(2.0 * len(names)).reshape(-1, 2) + 1, **more)


# Finding genes ------------------------------------------------------------------------------------


def test_genes_are_found_in_the_order_asked_for_and_those_unknown_are_counted_and_named():
    with pytest.warns(UserWarning, match="'own' knows nothing of 2 of 4 genes: 'X', 'Y'. Their vectors are 0"):
        vectors, known = two_d("A", "B").aligned(["X", "B", "A", "Y"])
    assert known.tolist() == [False, True, True, False]
    assert vectors.tolist() == [[0, 0], [3, 4], [1, 2], [0, 0]]
    with pytest.raises(sqi.BadInput, match="of 1 of 1 genes: 'X'; it has names such as 'A', 'B'.*Pass other knowledge"):
        two_d("A", "B").aligned(["X"])


@pytest.mark.parametrize("named", ["TP53", P53, "P53"])
@pytest.mark.parametrize("asked", ["TP53", P53, f"{P53}.17", "P53"])
def test_symbol_id_and_synonym_are_one_gene_whichever_the_knowledge_has(named, asked, gene_info):
    knowledge = two_d("KRT5", named).with_aliases(gene_info)
    assert knowledge.aligned([asked]).vectors.tolist() == [[3, 4]]


def test_names_that_could_mean_two_genes_find_none(gene_info):
    knowledge = two_d("TP53", "KRT5", "KRT14").with_aliases(gene_info)
    assert knowledge.rows(["XX", "LFS1", "EBS2"]) == [None, None, 1]
    folded = two_d("Abc", "ABC", "Def").ignoring_case()
    assert folded.rows(["abc", "Abc", "ABC", "DEF"]) == [None, 0, 1, 2]


def test_case_counts_unless_it_is_said_that_it_does_not():
    knowledge = two_d("ACTB", "TP53")
    with pytest.warns(UserWarning, match=r"1 match but for case: \.ignoring_case\(\) takes these"):
        knowledge.aligned(["Actb", "TP53"])
    assert knowledge.ignoring_case().aligned(["Actb"]).vectors.tolist() == [[1, 2]]


def test_wrong_numbers_and_names_are_refused():
    with pytest.raises(sqi.BadInput, match=r"has vectors \(2, 2\) of 1 genes; expected \(n, D\)"):
        GeneKnowledge(("A",), np.ones((2, 2)))
    with pytest.raises(sqi.BadInput, match="has genes twice: 'A'"):
        two_d("A", "B", "A")
    with pytest.raises(sqi.BadInput, match="NaN or infinite of 'B'"):
        GeneKnowledge(("A", "B"), np.array([[1.0], [np.nan]]))


# Changing it --------------------------------------------------------------------------------------


def test_permuted_knowledge_has_the_same_vectors_of_other_genes():
    names = [f"G{i}" for i in range(50)]
    knowledge = two_d(*names)
    control = knowledge.permuted(1)
    assert control.names == knowledge.names and control.name == "own, permuted" and control.sha256 != knowledge.sha256
    assert sorted(map(tuple, control.vectors)) == sorted(map(tuple, knowledge.vectors))
    assert (control.vectors[:, 0] == knowledge.vectors[:, 0]).mean() < 0.2
    few = knowledge.only(names[:5]).permuted()
    assert sorted(few.vectors[:, 0]) == sorted(knowledge.vectors[:5, 0])


def test_kinds_of_knowledge_stand_side_by_side_by_gene(gene_info):
    one, other = two_d("A", "TP53", name="one"), two_d("P53", "C", name="other").with_aliases(gene_info)
    both = GeneKnowledge.concat([one, other])
    assert (both.names, both.width, both.name) == (("A", "TP53", "C"), 4, "one+other")
    expected = np.array([[1, 2, 0, 0], [3, 4, 1, 2], [0, 0, 3, 4]]) / np.sqrt((1 + 4 + 9 + 16) / 2)
    np.testing.assert_allclose(both.vectors, expected, rtol=1e-6)
    with pytest.raises(sqi.BadInput, match="parts is empty"):
        GeneKnowledge.concat([])


def test_provenance_says_what_it_is_and_its_hash_follows_names_and_vectors():
    said = two_d("A", "B").provenance
    assert (said["name"], said["genes"], said["width"]) == ("own", 2, 2)
    assert said["sha256"] == two_d("A", "B").sha256 != two_d("B", "A").sha256
    assert "'own' of 2 genes, 2 wide" in repr(two_d("A", "B"))


# Making it ----------------------------------------------------------------------------------------


def test_a_frame_has_genes_in_the_index_and_numbers_in_the_columns():
    frame = pd.DataFrame({"x": [1, 2], "y": [0.5, 0.25]}, index=["A", "B"])
    assert GeneKnowledge.from_frame(frame).aligned(["B"]).vectors.tolist() == [[2, 0.25]]
    with pytest.raises(sqi.BadInput, match="columns 'symbol' hold no numbers.*set_index"):
        GeneKnowledge.from_frame(frame.assign(symbol=["a", "b"]))


def test_a_file_of_numpy_is_read_unless_it_holds_objects(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array(["A", "B"]), vectors=np.eye(2))
    assert GeneKnowledge.from_npz(tmp_path / "a.npz").aligned(["B", "A"]).vectors.tolist() == [[0, 1], [1, 0]]
    np.savez(tmp_path / "b.npz", names=np.array(["A", "B"], dtype=object), vectors=np.eye(2))
    with pytest.raises(sqi.BadInput, match="holds objects, which are not read"):
        GeneKnowledge.from_npz(tmp_path / "b.npz")
    with pytest.raises(sqi.MissingKey, match="has no array 'genes'; it has 'names', 'vectors'"):
        GeneKnowledge.from_npz(tmp_path / "a.npz", names="genes")
