from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sq_imputer import BadInput, MissingKey, Target
from sq_imputer.section.slide import Slide


def read(section, target="obs:x", **known) -> Slide:
    """The section, with these columns of obs, read for a target."""
    table = section.tables["table"]
    for name, values in known.items():
        table.obs[name] = values
    return Slide.from_sdata(section, target=target)


def test_categories_are_one_column_each_and_rows_without_one_are_not_measured(toy_section):
    text = np.array(["b", "a", "a"] * 40)[: toy_section.tables["table"].n_obs].astype(object)
    text[:2] = None, ""
    slide = read(toy_section, x=text)
    assert (slide.target.kind, slide.target.names, slide.target.unit) == ("classes", ("a", "b"), "probability")
    assert slide.measured.tolist() == [False, False] + [True] * (len(text) - 2)
    found = slide.with_genes(("b", "a", "c"), "probability")
    assert found.expression[2:5].tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]  # nobody is of c
    assert slide.depth[5] == np.asarray(toy_section.tables["table"].X.sum(axis=1)).ravel()[5]


def test_rows_of_a_class_that_is_not_named_are_not_measured(toy_section):
    slide = read(toy_section, x=["a", "b"] * 29 + ["c"] * (toy_section.tables["table"].n_obs - 58))
    found = slide.with_genes(("a", "c"), "probability")
    assert found.measured.sum() == 29 + toy_section.tables["table"].n_obs - 58 and np.isnan(found.expression[1]).all()


def test_numbers_keep_their_value_and_what_is_no_number_is_not_measured(toy_section):
    values = np.arange(float(toy_section.tables["table"].n_obs))
    values[:2] = np.nan, np.inf
    slide = read(toy_section, x=values)
    assert slide.target.kind == "numbers" and slide.measured.sum() == len(values) - 2
    assert slide.with_genes(("x",), "value").expression[2:5, 0].tolist() == [2, 3, 4]
    with pytest.raises(MissingKey, match="'y' not in obs\\['x'\\]"):
        slide.with_genes(("y",))


def test_true_and_false_and_whole_numbers_that_are_said_to_be_so_are_classes(toy_section):
    n = toy_section.tables["table"].n_obs
    assert read(toy_section, x=np.arange(n) % 2 == 0).target.names == ("False", "True")
    assert read(toy_section, Target("obs:x", "classes"), x=np.arange(n) % 3).target.names == ("0", "1", "2")


def test_a_composition_is_checked_and_a_matrix_without_names_is_numbered(toy_section):
    table = toy_section.tables["table"]
    parts = np.random.default_rng(0).dirichlet(np.ones(3), table.n_obs)
    table.obsm["p"] = pd.DataFrame(parts, index=table.obs_names, columns=["a", "b", "c"])
    table.obsm["q"] = parts
    assert read(toy_section, Target("obsm:p", "composition")).target.names == ("a", "b", "c")
    assert read(toy_section, "obsm:q").target.names == ("q_0", "q_1", "q_2")
    table.obsm["q"] = 2 * parts
    with pytest.raises(BadInput, match="is no composition: .* rows sum to 2 to 2"):
        read(toy_section, Target("obsm:q", "composition"))


def test_a_section_without_the_target_has_nothing_measured_and_says_so_when_it_is_to_be_fitted(toy_section):
    slide = read(toy_section)
    assert slide.labels is None and not slide.measured.any()
    with pytest.raises(MissingKey, match="has no obs\\['x'\\], which a model is to be fitted on"):
        slide.with_genes(("a",))


def test_another_table_of_the_same_shapes_has_a_unit_that_is_said(toy_section):
    proteins = toy_section.tables["table"][:20, :3].copy()
    proteins.X = proteins.X.toarray()
    toy_section.tables["proteins"] = proteins
    with pytest.raises(BadInput, match="unit of tables\\['proteins'\\] is not known. Pass unit="):
        read(toy_section, "table:proteins")
    slide = read(toy_section, Target("table:proteins", unit="counts"))
    assert slide.measured.sum() == 20 and slide.target.names == tuple(proteins.var_names)


def test_a_table_without_counts_is_enough_for_labels(toy_section):
    toy_section.tables["table"].X = toy_section.tables["table"].X.toarray() / 3
    with pytest.raises(BadInput, match="not counts"):
        Slide.from_sdata(toy_section)
    with pytest.warns(UserWarning, match="depth is not known beside target 'obs:nuclei', .* not counts"):
        slide = read(toy_section, "obs:nuclei")
    assert slide.measured.all() and np.isnan(slide.depth).all() and len(slide.marks(())) == len(slide)
    toy_section.tables["table"].X = None
    assert np.isnan(read(toy_section, "obs:nuclei").depth).all()  # there are none, which needs no word
