"""A small language model: what it reads, that it learns, and that a folder gives back what was saved."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer.device import _openmp
from sq_imputer.nn.language import LanguageModel, Words, _turned, _turns, drawn, hash_of, net_loss, read, spelled

TEXTS = [f"{one} protein {other} binding" for one in ("zinc", "iron", "actin") for other in ("dna", "rna", "lipid")]
FEW = {"words": 20, "width": 16, "depth": 2, "heads": 2, "batch_size": 8, "context": 12, "progress": False}


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel.train(TEXTS, steps=120, lr=1e-2, **FEW)


def test_words_are_whole_where_frequent_and_spelled_where_not():
    words = Words.of(["keratin 5", "keratin 14", "actin"], most=2)
    assert words.pieces[:2] == ("<end>", "<odd>") and {"keratin", "k", "5"} < set(words.pieces)
    told = [words.pieces[number] for number in words("Keratin keratins 51 ß")]
    assert told[:2] == ["keratin", "keratin"] and told[3:] == ["5", "1", "<odd>"]
    assert read(spelled(words.pieces)) == words
    with pytest.raises(sqi.BadInput, match="hold no word"):
        Words.of([" "])


def test_a_state_hangs_on_what_came_before_and_on_the_order_of_it():
    net = drawn(10, 16, 2, 2, seed=0)
    x = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(1))
    changed = x.clone()
    changed[:, 4] = -changed[:, 4]
    before, after = net(x), net(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().amax(dim=2).min() > 1e-3
    turned = net(x[:, [1, 0, 2, 3, 4, 5]])
    assert (turned[:, 5] - before[:, 5]).abs().max() > 1e-3


def test_positions_are_relative():
    net = drawn(10, 16, 1, 2, seed=0)
    block, x = net.blocks[0].attention, torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(1))
    q = block.query(x).unflatten(-1, (2, -1)).transpose(1, 2)
    k = block.key_value(x)[..., :16].unflatten(-1, (2, -1)).transpose(1, 2)
    turn, later = _turns(5, 8, x), [part[3:] for part in _turns(8, 8, x)]
    here = _turned(q, turn) @ _turned(k, turn).transpose(-1, -2)
    torch.testing.assert_close(here, _turned(q, later) @ _turned(k, later).transpose(-1, -2))


def test_the_loss_is_the_cross_entropy_of_the_next_word():
    net = drawn(7, 8, 1, 2, seed=0)
    ids = torch.tensor([[1, 4, 2, 6]])
    likely = (net(net.table[ids]) @ net.table.T).log_softmax(dim=-1)
    by_hand = -torch.stack([likely[0, t, ids[0, t + 1]] for t in range(3)]).mean()
    torch.testing.assert_close(net_loss(net, ids), by_hand)


def test_it_learns_which_word_follows(model):
    by_chance = np.log(len(set(" ".join(TEXTS).split())) + 1)
    assert model.told["loss"] < by_chance / 2
    numbers = model.words("zinc protein dna")
    with torch.no_grad():
        said = model.net(model.net.table[torch.tensor([numbers])])[0, -1] @ model.net.table.T
    assert model.words.pieces[int(said.argmax())] == "binding"


def test_texts_in_another_order_of_words_teach_nothing_of_order():
    rng = np.random.default_rng(0)
    mixed = [" ".join(rng.permutation(text.split())) for text in TEXTS * 5]
    blind = LanguageModel.train(mixed, steps=120, lr=1e-2, **FEW)
    ordered = LanguageModel.train(TEXTS * 5, steps=120, lr=1e-2, **FEW)
    assert ordered.told["loss"] < 0.8 * blind.told["loss"]


def test_the_seed_decides_and_torch_is_left_alone(model):
    before = torch.get_rng_state()
    again = LanguageModel.train(TEXTS, steps=120, lr=1e-2, **FEW)
    assert again.sha256 == model.sha256 and torch.equal(torch.get_rng_state(), before)
    assert (
        LanguageModel.train(TEXTS, steps=2, seed=1, **FEW).sha256 != LanguageModel.train(TEXTS, steps=2, **FEW).sha256
    )


def test_the_number_of_threads_that_openmp_has_changes_no_bit(model):
    with _openmp().limit(limits=3 if torch.get_num_threads() == 2 else 2):  # as numba and others leave it behind
        assert LanguageModel.train(TEXTS, steps=120, lr=1e-2, **FEW).sha256 == model.sha256


def test_a_folder_gives_back_the_same_model_frozen(model, tmp_path):
    model.save(tmp_path / "lm")
    found = LanguageModel.load(tmp_path / "lm")
    assert found.sha256 == model.sha256 and found.words == model.words and found.told == model.told
    assert not any(weight.requires_grad for weight in found.net.parameters())
    np.testing.assert_array_equal(found.encode(TEXTS), model.encode(TEXTS))


def test_it_encodes_descriptions_of_genes(model):
    knowledge = sqi.GeneKnowledge.from_descriptions({"A": TEXTS[0], "B": TEXTS[1]}, model.encode, name="lm")
    assert knowledge.vectors.shape == (2, 16) and hash_of(model.net) == model.sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 32}, "do not fit"),
        ({"width": -1}, "is damaged"),
        ({"words": ["a", "a", "b"]}, "is damaged"),
        ({"format": 9}, "another version"),
        ({"sha256": "0"}, "does not have the sha256"),
    ],
)
def test_a_damaged_folder_is_refused(model, tmp_path, change, message):
    model.save(tmp_path)
    said = json.loads((tmp_path / "language.json").read_text()) | change
    (tmp_path / "language.json").write_text(json.dumps(said))
    with pytest.raises(sqi.BadInput, match=message):
        LanguageModel.load(tmp_path)
    (tmp_path / "language.json").unlink()
    with pytest.raises(sqi.MissingKey, match="no 'language.json'"):
        LanguageModel.load(tmp_path)
