from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.genes.panel import choose_genes, columns_for, common_genes
from sq_imputer.section.counts import Counts

NAMES = ["A", "B", "C", "D", "E"]


def test_columns_are_found_by_name_in_the_order_asked_for():
    assert columns_for(["D", "A"], NAMES, "it") == [3, 0]


@pytest.mark.parametrize(
    ("genes", "kind", "message"),
    [
        (
            ["a", "B", "X"],
            MissingKey,
            r"2 of 3 genes are not in it: 'a', 'X'; .* 1 of them match ignoring case \('a'\)",
        ),
        (["X", "Y"], MissingKey, "'X', 'Y'; it has 5 genes such as 'A', 'B', 'C'. Pass genes= that all"),
        (["A", "B", "A"], BadInput, "names some more than once: 'A'"),
        ([], BadInput, "genes is empty"),
    ],
)
def test_genes_that_cannot_be_found_are_named(genes, kind, message):
    with pytest.raises(kind, match=message):
        columns_for(genes, NAMES, "it")


def test_common_genes_come_in_the_order_of_the_first_section():
    assert common_genes([["C", "A", "B"], ["A", "X", "C"], ["C", "A"]]) == ["C", "A"]
    assert common_genes([["B", "A"]]) == ["B", "A"]


def planted(seed=0, names=None, shift=1.0, n=400) -> SimpleNamespace:
    """A section with genes of known kind; `shift` scales "between" in the whole section."""
    rng = np.random.default_rng(seed)
    wave = np.where(np.arange(n) % 2, 1.0, 0.1)
    rates = {
        "constant": np.full(n, 300.0),
        "strong": 300 * wave,
        "weaker": 300 * np.where(np.arange(n) % 2, 1.0, 0.4),
        "between": np.full(n, 300.0 * shift),
        "rare": np.where(np.arange(n) % 25 == 0, 900.0, 0.0),
        "filler": np.full(n, 5000.0),
    }
    counts = csr_matrix(np.column_stack([rng.poisson(rate) for rate in rates.values()]).astype(np.float32))
    order = [list(rates).index(name) for name in names or rates]
    depth = np.asarray(counts.sum(axis=1)).ravel()
    return SimpleNamespace(
        counts=Counts.of(counts[:, order]),
        var_names=tuple(names or rates),
        measured=np.ones(n, dtype=bool),
        depth=depth,
        section=f"S{seed}",
    )


def test_the_most_variable_of_the_well_expressed_genes_come_first():
    assert choose_genes([planted()], 2) == ["strong", "weaker"]
    assert choose_genes([planted()], 10, detected=0.01)[0] == "rare"


def test_where_few_genes_are_detected_often_the_next_ones_are_taken_and_it_is_said():
    usual = choose_genes([planted()], 5)
    assert "rare" not in usual
    with pytest.warns(UserWarning, match="5 genes are detected in more than 10% of the 400 rows, and 6 are asked for"):
        assert set(choose_genes([planted()], 6)) == {*usual, "rare"}
    rng = np.random.default_rng(0)
    sparse = csr_matrix(rng.random((500, 60)) < 0.06)  # bins: no gene is in a tenth of them
    bins = SimpleNamespace(
        counts=Counts.of(sparse), var_names=tuple(f"g{k}" for k in range(60)), measured=np.ones(500, bool)
    )
    bins.depth, bins.section = np.asarray(sparse.sum(axis=1)).ravel(), "bins"
    with pytest.warns(UserWarning, match="0 genes are detected in more than 10% of the 500 rows, and 30 are asked for"):
        assert len(choose_genes([bins], 30)) == 30
    bins.counts = Counts.of(csr_matrix(sparse.toarray() * (np.arange(60) < 20)))
    with pytest.warns(UserWarning, match="30 are asked for; those in .* are taken .20 genes."):
        assert len(choose_genes([bins], 30)) == 20


def test_only_the_highest_are_considered():
    assert set(choose_genes([planted()], 2, candidates=3)) < {"filler", "constant", "between"}


def test_as_many_are_considered_as_are_asked_for():
    assert len(choose_genes([planted()], 4, candidates=3)) == 4


def test_a_difference_between_sections_chooses_no_gene():
    chosen = choose_genes([planted(0), planted(1, shift=0.05)], 3)
    assert chosen[:2] == ["strong", "weaker"]
    pooled = np.log1p(np.concatenate([planted(0).counts.toarray(), planted(1, shift=0.05).counts.toarray()]))
    assert pooled.var(axis=0)[3] > pooled.var(axis=0)[2]  # pooled, "between" would come before "weaker"


def test_genes_are_matched_by_name_among_those_that_all_sections_have():
    sections = [planted(0), planted(1, names=["filler", "weaker", "constant", "strong"])]
    assert choose_genes(sections, 10)[:2] == ["strong", "weaker"]
    assert set(choose_genes(sections, 10)) == {"filler", "weaker", "constant", "strong"}


def test_rows_that_were_not_measured_do_not_count():
    section = planted()
    with_gaps = SimpleNamespace(**vars(section))
    with_gaps.counts = Counts.of(csr_matrix(np.vstack([section.counts.toarray(), np.zeros((400, 6))])))
    with_gaps.measured = np.arange(800) < 400
    with_gaps.depth = np.concatenate([section.depth, np.full(400, np.nan)])
    assert choose_genes([with_gaps], 6, detected=0.9) == choose_genes([section], 6, detected=0.9)


def test_without_a_usable_gene_the_error_says_why():
    other = planted(1)
    other.var_names = tuple(f"ENSG{i}" for i in range(6))
    with pytest.raises(BadInput, match="the 2 sections have no gene in common; check that all use symbols"):
        choose_genes([planted(), other])
    empty = planted()
    empty.counts = Counts.of(csr_matrix(empty.counts.shape))
    with pytest.raises(BadInput, match="no gene is detected in 10 or more of the 400 rows; pass genes="):
        choose_genes([empty])
