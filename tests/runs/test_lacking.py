from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import sq_imputer as sqi
from sq_imputer.runs.lacking import lacks, warn_of_strange
from sq_imputer.section.slide import Slide

SMALL = {"size_px": 32, "context_um": ()}


def labelled(section, labels) -> Slide:
    section.tables["table"].obs["x"] = pd.Categorical(labels)
    return Slide.from_sdata(section, target="obs:x")


def test_what_some_rows_lack_and_what_a_model_does_not_know_is_said_by_name(section):
    n = section.tables["table"].n_obs
    slide = labelled(section, ["a"] * 10 + ["b"] * 10 + ["c"] * (n - 20))
    every = slide.with_genes(("a", "b", "c"), "probability")
    assert lacks([every.take(np.arange(15))], ("a", "b", "c")) == ["c"]
    with pytest.warns(UserWarning, match="10 of .* are of 'b', which the model does not know"):
        warn_of_strange(slide, ("a", "c"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_strange(slide, ("a", "b", "c", "d"))


def test_a_class_that_lies_in_one_block_alone_is_said_by_name(section):
    xy = Slide.from_sdata(section).xy_um
    labelled(
        section, np.where(xy[:, 0] < np.quantile(xy[:, 0], 0.2), "rim", np.where(xy[:, 1] > xy[:, 1].mean(), "a", "b"))
    )
    with pytest.warns(UserWarning) as said:
        sqi.tl.predict(section, "ridge", target="obs:x", config=SMALL, n_folds=2, buffer_um=0, progress=False)
    assert any("is of 'rim': what they predict is never that" in str(one.message) for one in said)
