"""Texts become vectors by spelling, and by encoders of others."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
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


@pytest.mark.parametrize("pad", [True, False])
def test_a_model_of_transformers_gives_the_mean_over_the_tokens_of_a_text(pad, tmp_path):
    """GPT-2 and its like have no token to pad with, and transformers then refuses texts of several lengths."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra text)")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"zinc": 0, "finger": 1, "protein": 2, "?": 3, "pad": 4}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    more = {"pad_token": "pad"} if pad else {}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?", **more).save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.BertModel(config).eval()
    model.save_pretrained(tmp_path)
    texts = {"A": "zinc finger protein", "B": "zinc", "C": "?"}
    said = GeneKnowledge.from_descriptions(texts, str(tmp_path))
    with torch.inference_mode():
        alone = [model(torch.tensor([ids])).last_hidden_state[0].mean(dim=0) for ids in ([0, 1, 2], [0], [3])]
    np.testing.assert_allclose(said.aligned(list(texts)).vectors, torch.stack(alone), rtol=1e-4, atol=1e-5)
