"""Language models of transformers, from a folder on this machine."""

from __future__ import annotations

import sys

import pytest
import torch

import sq_imputer as sqi
from sq_imputer.nn import pretrained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny GPT-2 with a tokenizer of words, as `save_pretrained` writes them."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra text)")
    from tokenizers import Tokenizer, models, pre_tokenizers

    path = tmp_path_factory.mktemp("gpt2")
    words = Tokenizer(models.WordLevel({"zinc": 0, "finger": 1, "protein": 2, "?": 3}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(path)
    config = transformers.GPT2Config(vocab_size=4, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.GPT2Model(config).save_pretrained(path)
    return str(path)


def test_a_folder_is_read_and_its_weights_fit_its_architecture(folder):
    net = pretrained.architecture(folder)
    net.load_state_dict(pretrained.weights(folder))
    assert net.table.shape == (4, 16) and pretrained.tokenizer(folder)("zinc protein zebra") == [0, 2, 3]
    assert not net.train().training and not any(part.training for part in net.modules())
    x = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0))
    later = torch.cat([x[:, :4], -x[:, 4:]], dim=1)
    torch.testing.assert_close(net(x)[:, :4], net(later)[:, :4])


def test_what_sees_the_future_is_refused(folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    with torch.random.fork_rng():
        transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(sqi.BadInput, match="expected a causal language model"):
        pretrained.weights(str(tmp_path))


def test_nothing_is_downloaded(folder, tmp_path):
    with pytest.raises(sqi.MissingKey, match="no language model 'nobody/nothing'"):
        pretrained.tokenizer("nobody/nothing")


def test_without_transformers_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(sqi.MissingKey, match=r"pip install 'sq-imputer\[text\]'"):
        pretrained.tokenizer("gpt2")
