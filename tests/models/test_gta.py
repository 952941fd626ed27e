"""GTA-style. Item 9 of the acceptance list of models of sequence, clause by clause, and what item 11 asks of it."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata
import torch
from spatialdata.models import TableModel

import sq_imputer as sqi
from sq_imputer import GeneKnowledge, GeneWindows
from sq_imputer.models import bilinear, gta
from sq_imputer.nn.language import LanguageModel, hash_of

PLAN = sqi.Plan(device="cpu", progress=False, seed=1, calibration=0)
KINDS = ("zinc finger dna binding", "actin filament motor", "keratin of skin", "ribosome protein subunit")
EACH = 16  # genes of a kind on a chromosome


def made(text: bool, dna: bool, seed: int = 0) -> list[GeneWindows]:
    """Three chromosomes of genes whose expression follows from their kind, which the text says, or from the DNA."""
    rng = np.random.default_rng(seed)
    n = 3 * EACH * len(KINDS)
    kind, share = rng.permutation(np.arange(n) % len(KINDS)), 0.05 + 0.8 * rng.random(n)
    bases = np.where(rng.random((n, 64)) < share[:, None], "G", rng.choice(list("ACT"), (n, 64)))
    y = text * (kind - 1.5) + dna * 5 * (share - 0.45) + 0.2 * rng.normal(size=n)
    names = [f"G{k}" for k in range(n)]
    source = GeneWindows.from_sequences(
        ["".join(row) for row in bases], y, names=names, group=[f"chr{k % 3}" for k in range(n)]
    )
    return source.with_texts({name: f"expression of {name}; {KINDS[k]}" for name, k in zip(names, kind, strict=True)})


def config(**changes) -> gta.Config:
    return replace(gta.Config.small(), **{"epochs": 12, **changes})


@pytest.fixture(scope="module")
def language(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("language")
    how = {"words": 40, "width": 16, "depth": 2, "heads": 2, "steps": 60, "context": 16, "progress": False}
    LanguageModel.train([*KINDS, "expression of"] * 4, **how).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def both() -> list[GeneWindows]:
    return made(text=True, dna=True).by_chromosome()


@pytest.fixture(scope="module")
def fitted(both, language) -> gta.Model:
    return gta.Model(config(language=language)).fit(both[:2], PLAN)


@pytest.fixture
def batch(both, fitted) -> sqi.Batch:
    return next(fitted.seen(both[2], 16, rows=np.arange(16)))


def skill(model: gta.Model, source: GeneWindows) -> float:
    said = model.predict(source, device="cpu").mean[:, 0].numpy()
    return float(np.corrcoef(said, source.expression[:, 0])[0, 1])


# Item 9: the language model is frozen, and still passes on the gradient ------------------------------


def test_9_no_weight_of_the_language_model_changes_in_training(fitted, language) -> None:
    assert hash_of(fitted.language) == LanguageModel.load(language).sha256
    assert fitted.history["train"][-1] < 0.8 * fitted.history["train"][0]


def test_9_the_gradient_goes_through_it_to_what_reads_the_dna(fitted, batch) -> None:
    model = copy.deepcopy(fitted).train()
    with torch.enable_grad():
        model.loss(batch)["mse"].backward()
    assert model.base.weight.grad.abs().max() > 0 and model.align.mix.weight.grad.abs().max() > 0
    assert all(weight.grad is None for weight in model.language.parameters())


# Item 9: attention rows sum to 1 and heads are convex combinations -------------------------------------


def test_9_what_a_head_says_of_a_bin_is_a_mixture_of_words(fitted, batch) -> None:
    table = fitted.language.table[fitted.used]
    with torch.no_grad():
        weights, values = fitted.align.weights(fitted.bins(batch), table)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
        heads = torch.einsum("bhts,hse->bhte", weights, values)
    assert (heads <= values.amax(dim=1)[None, :, None] + 1e-5).all()
    assert (heads >= values.amin(dim=1)[None, :, None] - 1e-5).all()
    assert len(fitted.prototype_words(3)) == 16 and set(fitted.prototype_words(1)[0]) <= set(fitted.words.pieces)


# Item 9: prompts ---------------------------------------------------------------------------------------


def test_9_the_prompt_is_read_in_its_order_before_the_dna(fitted, batch) -> None:
    [prompt, *_], (tokens, inside, dna) = fitted.prompts(batch), fitted.tokens(batch)
    said = [fitted.words.pieces[number] for number in prompt.tolist()]
    assert said[:2] == ["expression", "of"] and dna[0].tolist() == [False] * len(prompt) + [True] * 4 + [False] * (
        tokens.shape[1] - len(prompt) - 4
    )
    torch.testing.assert_close(tokens[0][: len(prompt)], fitted.language.table[prompt])
    assert torch.equal(inside[0] & ~dna[0], torch.arange(tokens.shape[1]) < len(prompt))


def test_9_words_in_another_order_are_something_else(fitted, both) -> None:
    def turned(text: str) -> str:
        return " ".join(reversed(text.split()))

    other = both[2].with_texts({name: turned(text) for name, text in zip(both[2].names, both[2].texts, strict=True)})
    said, changed = (fitted.predict(one, device="cpu").mean for one in (both[2], other))
    assert (said - changed).abs().max() > 1e-3


def test_9_the_prompt_of_another_gene_changes_what_is_said(fitted, both) -> None:
    order = np.random.default_rng(0).permutation(len(both[2]))
    swapped = both[2].with_texts(dict(zip(both[2].names, both[2].texts[order], strict=True)))
    assert skill(fitted, both[2]) > 0.6 and skill(fitted, swapped) < skill(fitted, both[2]) - 0.3


def test_a_prediction_does_not_hang_on_the_prompts_beside_it(fitted, both) -> None:
    alone = fitted.predict(both[2], rows=np.array([3]), device="cpu").mean
    torch.testing.assert_close(alone, fitted.predict(both[2], device="cpu").mean[3:4], atol=1e-5, rtol=1e-5)


# Item 9: controls --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lm", ["random", "none"])
def test_9_controls_learn_too_and_never_train_the_language_model(both, language, lm) -> None:
    model = gta.Model(config(language=language, lm=lm)).fit(both[:2], PLAN)
    trained = LanguageModel.load(language).sha256
    assert (hash_of(model.language) == trained) == (lm == "none")
    assert skill(model, both[2]) > 0.3


def test_text_alone_and_dna_alone_learn_what_each_says(language) -> None:
    said = {"text": made(text=True, dna=False).by_chromosome(), "dna": made(text=False, dna=True).by_chromosome()}
    reading = {"text": config(language=language, length=0), "dna": config(language=language, prompt=0)}
    models = {(one, other): gta.Model(reading[one]).fit(said[other][:2], PLAN) for one in reading for other in said}
    skills = {key: skill(model, said[key[1]][2]) for key, model in models.items()}
    assert min(skills["text", "text"], skills["dna", "dna"]) > 0.6
    assert max(abs(skills["text", "dna"]), abs(skills["dna", "text"])) < 0.35


def test_states_of_prompts_that_are_kept_change_nothing(language, monkeypatch) -> None:
    parts = made(text=True, dna=False).by_chromosome()
    kept = gta.Model(config(language=language, length=0, lm="frozen")).fit(parts[:2], PLAN)
    monkeypatch.setattr(gta, "MOST_KEPT", 0)
    anew = gta.Model(config(language=language, length=0, lm="frozen")).fit(parts[:2], PLAN)
    torch.testing.assert_close(kept.head[1].weight, anew.head[1].weight, atol=1e-4, rtol=1e-3)
    assert kept._kept is None


def test_a_window_or_a_prompt_there_must_be() -> None:
    with pytest.raises(sqi.BadInput, match="there is nothing to read. Give it a window"):
        gta.Config(length=0, prompt=0)


def test_readout_of_the_dna_alone_sees_no_state_of_the_prompt(both, language) -> None:
    model = gta.Model(config(language=language, readout="dna", epochs=1)).fit(both[:2], PLAN)
    batch = next(model.seen(both[2], 4, rows=np.arange(4)))
    states, inside = model.states(batch)
    assert inside.sum(dim=1).tolist() == [4] * 4 and states.shape[1] > 4


# A language model of transformers ---------------------------------------------------------------------


def test_a_model_of_transformers_is_read_from_a_folder_and_frozen(both, tmp_path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra text)")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = sorted({word for text in both[0].texts for word in text.replace(";", " ;").split()})
    words += ["nobody", "says", "this"]
    made = Tokenizer(models.WordLevel({word: k for k, word in enumerate(["?", *words])}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?").save_pretrained(tmp_path / "lm")
    shape = transformers.GPT2Config(vocab_size=len(words) + 1, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.GPT2Model(shape).save_pretrained(tmp_path / "lm")
    model = gta.Model(config(language=str(tmp_path / "lm"), epochs=2)).fit(both[:2], PLAN)
    from sq_imputer.nn import pretrained

    before = pretrained.architecture(str(tmp_path / "lm"))
    before.load_state_dict(pretrained.weights(str(tmp_path / "lm")))
    assert hash_of(model.language) == hash_of(before) and not model.language.training
    assert len(model.used) == len(words) - 3 + 1  # those of the training genes alone, and one for all others
    model.save(tmp_path / "model")
    again = sqi.load(tmp_path / "model").predict(both[2], device="cpu").mean
    assert torch.equal(again, model.predict(both[2], device="cpu").mean)


# Item 11: what it makes of genes is knowledge -----------------------------------------------------------


def test_11_vectors_of_genes_survive_a_store_and_are_knowledge_in_one_line(both, language, arrays, tmp_path) -> None:
    whole = made(text=True, dna=True)
    names = [*whole.names, "without a window"]
    adata = ad.AnnData(np.zeros((2, len(names)), dtype=np.float32), var=pd.DataFrame(index=names))
    sdata = spatialdata.SpatialData(tables={"table": TableModel.parse(adata)})
    told = {"config": config(language=language), "n_folds": 3, "plan": PLAN}
    sqi.tl.sequence_prior(sdata, whole, "gta", **told)
    sdata.write(tmp_path / "section.zarr")
    table = spatialdata.read_zarr(tmp_path / "section.zarr").tables["table"]
    np.testing.assert_array_equal(table.varm["X_gta"], sdata.tables["table"].varm["X_gta"])
    y, said = whole.expression[:, 0], table.var.loc[whole.names, "gta"]
    assert np.corrcoef(y, said)[0, 1] > 0.6 and set(table.var["gta_fold"][:-1]) == {0, 1, 2}
    knowledge = GeneKnowledge.from_anndata(table, "X_gta")
    assert knowledge.names == tuple(whole.names)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    rows = x[:, :1] * y + 0.3 * rng.normal(size=(200, len(y)))  # one number of the image raises what is expressed
    tissue = arrays(rows, features=x, genes=list(whole.names))
    views = bilinear.Config(context_um=(), per_section=False, calibration=2)
    explained = bilinear.Model(views, knowledge).fit(tissue, PLAN).history["left_out_genes_r2"]
    dealt = bilinear.Model(views, knowledge.permuted(1)).fit(tissue, PLAN).history["left_out_genes_r2"]
    assert explained > 0.3 and dealt < 0.1


@pytest.fixture(scope="module")
def told(pickled_section, language) -> spatialdata.SpatialData:
    """A toy section that has vectors of its genes, which are written about in three kinds."""
    section = pickle.loads(pickled_section)
    names = [str(name) for name in section.tables["table"].var_names]
    y, chroms = np.arange(len(names)) % 3, [f"chr{k // 3 % 3}" for k in range(len(names))]
    alone = GeneWindows.from_sequences(["N"] * len(names), y * 1.0, names=names, group=chroms)
    windows = alone.with_texts({name: KINDS[k] for name, k in zip(names, y, strict=True)})
    how = {"config": config(language=language, length=0, epochs=2), "n_folds": 3, "plan": PLAN}
    sqi.tl.sequence_prior(section, windows, "gta", **how)
    return section


@pytest.mark.parametrize("name", ["bilinear", "comtip", "dkan"])
def test_11_models_of_tissue_take_the_vectors_in_one_line(told, name) -> None:
    model = sqi.get_model(name)
    small = replace(model.Config.small(), epochs=1) if hasattr(model.Config, "epochs") else model.Config.small()
    knowledge = GeneKnowledge.from_anndata(told.tables["table"], "X_gta")
    fitted = sqi.tl.fit(told, name, knowledge=knowledge, config=small, plan=PLAN)
    aligned = fitted.knowledge.aligned(fitted.genes, quiet=True)
    assert aligned.known.all() and aligned.vectors.shape[1] == told.tables["table"].varm["X_gta"].shape[1]
