"""Models that need knowledge of genes get it by the fit, keep it, and say when they have none; others refuse it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer import GeneKnowledge, Prediction
from sq_imputer.models import ridge
from sq_imputer.predictor.folder import load_as

PLAN = sqi.Plan(device="cpu", progress=False)


@dataclass(frozen=True)
class Config(ridge.Config):
    knows: bool = True


class Knowing(ridge.Model):
    """Says of every gene the first number of its vector."""

    Config = Config

    @property
    def needs(self):
        return replace(super().needs, knowledge=self.config.knows)

    def predict_step(self, batch):
        return Prediction(self.gene_vectors[:, 0].expand(len(batch), -1))


KNOWING = Config(context_um=(), per_section=False)


@pytest.fixture
def knowledge(source) -> GeneKnowledge:
    vectors = np.arange(2.0 * len(source.genes)).reshape(-1, 2) + 1
    return GeneKnowledge(source.genes[::-1], vectors[::-1], "numbers", "a test")


def test_vectors_are_aligned_with_the_genes_of_the_fit(source, knowledge):
    model = Knowing(KNOWING, knowledge).fit(source, PLAN)
    assert model.sizes["knowledge"] == 2 and model.gene_known.all()
    np.testing.assert_array_equal(model.gene_vectors[:, 0], 1 + 2 * torch.arange(len(source.genes)))
    assert model.provenance["knowledge"] == knowledge.provenance | {"without": []}


def test_what_is_known_is_saved_and_loaded_with_the_model(source, knowledge, tmp_path):
    model = Knowing(KNOWING, knowledge).fit(source, PLAN)
    model.save(tmp_path / "m")
    again = load_as(tmp_path / "m", lambda _: Knowing)
    torch.testing.assert_close(again.predict(source, device="cpu").mean, model.predict(source, device="cpu").mean)
    said = json.loads((tmp_path / "m" / "model.json").read_text())["provenance"]["knowledge"]
    assert (said["name"], said["sha256"]) == ("numbers", knowledge.sha256)


def test_genes_without_knowledge_are_named_and_kept_in_the_provenance(source, knowledge):
    few = knowledge.only(source.genes[1:])
    with pytest.warns(UserWarning, match=f"'numbers' knows nothing of 1 of .* genes: '{source.genes[0]}'"):
        model = Knowing(KNOWING, few).fit(source, PLAN)
    assert model.provenance["knowledge"]["without"] == [source.genes[0]]
    assert not model.gene_vectors[0].any() and not model.gene_known[0]


def test_without_knowledge_the_spelling_of_names_is_taken_and_that_is_said(source):
    with pytest.warns(
        UserWarning, match=r"told nothing of genes but the spelling of their names \('lexical'\)"
    ) as said:
        model = Knowing(KNOWING).fit(source, PLAN)
    assert len(said) == 1 and model.provenance["knowledge"]["name"] == "lexical"
    assert model.fresh().knowledge is model.knowledge


def test_models_that_take_none_refuse_it_and_name_those_that_do(knowledge):
    with pytest.raises(sqi.BadInput, match=r"'ridge' takes no knowledge of genes; models that do: .*Leave out"):
        ridge.Model(ridge.Config(), knowledge)
    with pytest.raises(sqi.BadInput, match="knowledge is a dict; expected a GeneKnowledge"):
        Knowing(KNOWING, {"A": [1.0]})


def test_copies_share_what_is_known_and_a_fit_of_another_config_needs_none(source, knowledge):
    assert Knowing(KNOWING, knowledge).fresh().knowledge is knowledge
    assert "gene_vectors" not in Knowing(replace(KNOWING, knows=False)).fit(source, PLAN).state_dict()
    with pytest.raises(ValueError, match="read-only"):
        knowledge.vectors[0] = 0


class OfAConfig(ridge.Model):
    """A plug-in from before models were told of genes."""

    def __init__(self, config=None):
        super().__init__(config)


def test_a_model_whose_init_takes_a_config_alone_is_made_and_fitted(toy_slides):
    slides = [slide.with_genes(slide.var_names[:3]) for slide in toy_slides[:1]]
    model = OfAConfig(ridge.Config(size_px=32, context_um=()))
    assert type(model.fresh()) is OfAConfig and model.fresh().config == model.config
    assert sqi.tl.fit(
        list(toy_slides[:1]), OfAConfig, genes=3, config={"size_px": 32, "context_um": ()}, plan=PLAN
    ).fitted
    assert model.fit(slides, PLAN).fitted
