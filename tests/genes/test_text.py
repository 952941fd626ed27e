"""Texts become vectors by spelling, and by encoders of others."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from knowing import cosine

import sq_imputer as sqi
from sq_imputer import GeneKnowledge


def test_a_text_encoder_of_the_user_sees_the_texts(tmp_path):
    def length(texts):
        return np.array([[len(one), 1.0] for one in texts])

    (tmp_path / "texts.tsv").write_text("A\tone word\nB\ttwo\n")
    for descriptions in ({"A": "one word", "B": "two"}, tmp_path / "texts.tsv"):
        knowledge = GeneKnowledge.from_descriptions(descriptions, length)
        assert knowledge.vectors.tolist() == [[8, 1], [3, 1]] and knowledge.source == "descriptions by length"
    with pytest.raises(sqi.BadInput, match=r"encode gave \(1, 2\) of 2 texts"):
        GeneKnowledge.from_descriptions(descriptions, lambda texts: length(texts[:1]))
    with pytest.raises(sqi.BadInput, match="descriptions of 'B' are empty"):
        GeneKnowledge.from_descriptions({"A": "one", "B": " "})


def test_spelling_is_labelled_so_and_of_one_gene_alone():
    many, one = GeneKnowledge.lexical(["KRT5", "KRT14", "ACTB"]), GeneKnowledge.lexical(["KRT14"])
    assert many.name == "lexical" and many.width == 256
    np.testing.assert_array_equal(many.aligned(["KRT14"]).vectors, one.vectors)
    np.testing.assert_allclose(np.linalg.norm(many.vectors, axis=1), 1, rtol=1e-5)
    assert cosine(many, "KRT5", "KRT14") > cosine(many, "KRT5", "ACTB") + 0.1


def test_runs_of_letters_that_cancel_are_no_nan():
    words = [f"{a}{b}{c}x{a}y{c}" for a in "abcdefghij" for b in "klmnopqrst" for c in "uvwxyz"]
    texts = {f"G{k}": " ".join(words[k::12]) for k in range(12)}
    assert np.isfinite(GeneKnowledge.from_descriptions(texts).vectors).all()


def test_without_transformers_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with warnings.catch_warnings(), pytest.raises(sqi.MissingKey, match=r"pip install 'sq-imputer\[text\]'"):
        GeneKnowledge.from_descriptions({"A": "one"}, "some/model")
