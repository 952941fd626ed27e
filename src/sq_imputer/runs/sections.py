"""Sections and models as verbs accept them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer import external
from sq_imputer.encoders import encoder_card
from sq_imputer.encoders._shelf import Shelf, Weights, weights_of
from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.names import check_ids
from sq_imputer.genes.panel import choose_genes
from sq_imputer.predictor import zero_shot
from sq_imputer.predictor.config import of_mapping
from sq_imputer.predictor.registry import get_model, list_models
from sq_imputer.runs.joined import restore
from sq_imputer.scores.splits import told_apart
from sq_imputer.section.read import annotated, check_object
from sq_imputer.section.regions import common_names, slides_of
from sq_imputer.section.slide import Slide
from sq_imputer.store.provenance import pythonic
from sq_imputer.target import Target

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sq_imputer.genes.knowledge import GeneKnowledge
    from sq_imputer.predictor.base import Predictor

    Sections = SpatialData | Slide | Sequence[SpatialData | Slide] | Mapping[str, SpatialData | Slide]


N_GENES = 250  # unless said otherwise; on a table that is there already, its panel


def records(table: AnnData) -> dict[str, dict]:
    """Provenance of the predictions in a table, by layer; empty if `tl.predict` did not write it."""
    found = pythonic(table.uns.get("sq_imputer", {}))
    return {name: record for name, record in found.items() if name in table.layers and isinstance(record, dict)}


def folds_of(table: AnnData, layer: str | None) -> np.ndarray | None:
    """Folds `(n, repeats)` of a prediction, -1 where a row was not measured; None where nothing is in folds."""
    if f"{layer}_folds" in table.obsm and records(table)[layer].get("n_repeats", 1) > 1:
        return np.asarray(table.obsm[f"{layer}_folds"])
    return table.obs[[f"{layer}_fold"]].to_numpy() if f"{layer}_fold" in table.obs else None


def check_table(sdata: SpatialData, key: str, argument: str = "key") -> AnnData:
    """The table that `tl.predict` wrote; `argument` is what the verb calls its name."""
    check_object(sdata)
    restore(sdata, key)
    if key not in sdata.tables or not records(sdata.tables[key]):
        raise MissingKey(
            f"no prediction in tables['{key}']; sdata has {listed(sdata.tables)}. Call tl.predict first, or pass "
            f"{argument}=."
        )
    return sdata.tables[key]


def read_sections(
    sections: Sections,
    keys: Mapping,
    *,
    reference: bool = False,
    within: str | Mapping | None = None,
    encoders: Shelf | None = None,
) -> list[Slide]:
    """Slides of an object, of several, or of named ones; slides are passed on.

    A reference is read where it was measured: `shapes_key` may name a grid that only the object to be predicted has.
    `within` says which sections each object has, as :func:`sq_imputer.section.regions.find_regions` takes it. Sections
    of a list that have one name are numbered. All see through the same `encoders`.
    """
    from spatialdata import SpatialData

    if isinstance(sections, SpatialData | Slide):
        sections = [sections]
    if not isinstance(sections, Iterable):
        raise BadInput(
            f"sections are a {type(sections).__name__}; expected a SpatialData object, or a list or a dict of some."
        )
    named = sections.items() if isinstance(sections, Mapping) else _named(list(sections), keys)
    slides = []
    for name, section in named:
        if not isinstance(section, SpatialData | Slide):
            raise BadInput(
                f"a section is a {type(section).__name__}; expected SpatialData objects, a list or a dict of them."
            )
        if isinstance(section, Slide):
            slides.append(section)
            continue
        found = dict(keys)
        if reference and found.get("shapes_key") not in annotated(section, found.get("table_key", "table")):
            found["shapes_key"] = None
        if within is None:
            slides.append(Slide.from_sdata(section, section=name, **found))
        else:
            slides += slides_of(section, within, found).values()
    if not slides:
        raise BadInput("no sections; expected at least one SpatialData object.")
    encoders = encoders or Shelf()
    return [replace(slide, encoders=encoders) for slide in slides]


def _named(sections: list, keys: Mapping) -> list[tuple[str | None, SpatialData | Slide]]:
    """The sections of a list with names, where theirs do not tell them apart."""
    own = [str(section.attrs.get("section", "")) if hasattr(section, "attrs") else "" for section in sections]
    shapes = keys.get("shapes_key") or "section"
    names = told_apart([name or shapes for name in own])
    alone = [own.count(name) == 1 for name in own]
    return [(None if one else name, section) for one, name, section in zip(alone, names, sections, strict=True)]


def pick_genes(slides: Sequence[Slide], genes: Sequence[str] | int | None) -> list[str]:
    """Genes as named, or this many chosen on these slides, which must be the training sections.

    None: the usual number, or of another target all of its columns.
    """
    target = slides[0].target
    if genes is None:
        genes = N_GENES if target.is_genes else common_names(slides)
    if isinstance(genes, str):
        raise BadInput(
            f"genes is the text '{genes}'; expected a list of names, such as ['{genes}'], or a number of genes."
        )
    if isinstance(genes, Iterable) and not target.is_genes:
        return list(map(str, genes))
    if isinstance(genes, Iterable):
        check_ids({slide.section: slide.ids_by_name for slide in slides}, list(genes))
        return list(genes)
    if not target.is_genes:
        raise BadInput(f"genes is {genes!r}; of target '{target.where}', pass names of its columns, or none for all.")
    if not isinstance(genes, Integral) or isinstance(genes, bool) or genes < 1:
        raise BadInput(f"genes is {genes!r}; expected a positive whole number of genes, or a list of names.")
    without = [slide.section for slide in slides if slide.counts is None]
    if without:
        raise BadInput(
            f"sections {listed(without)} have no table of counts for their shapes, so a model cannot be fitted on "
            f"them. Pass "
            "table_key= or shapes_key=, or leave them out."
        )
    chosen = choose_genes(slides, int(genes))
    check_ids({slide.section: slide.ids_by_name for slide in slides}, chosen)
    return chosen


def asked(target: Target | str | None, unit: str | None = None) -> Target:
    """The target that a verb was given; of another than genes with the unit that it was given."""
    target = Target.of(target)
    return target if target == Target() or unit is None else replace(target, unit=unit)


def resolve_model(
    model: str | Path | Predictor | type[Predictor],
    config=None,
    genes: Sequence[str] | None = None,
    knowledge: GeneKnowledge | None = None,
    rows: str = "spots",
) -> Predictor:
    """A predictor from a name, a folder, a class, or itself, whose rows are spots, or genes.

    Parameters
    ----------
    model
        Registered name, `"zoo:<name>"` of a model of others, folder written by `save`, `Predictor` class or instance.
    config
        A `Config` of the model, or a mapping of some of its fields; only for a name or a class.
    genes
        What a model of others, or one that can say of genes that it was not fitted on, is asked for; its own if None.
    knowledge
        What a model that is not fitted, or asked for such genes, is told of genes.
    rows
        What its rows must be: `"spots"`, or `"genes"` of the DNA of genes.
    """
    found = _resolved(model, config, genes, knowledge)
    if found.card.rows != rows:
        name, own = found.card.name, {"spots": "images", "genes": "the DNA of genes"}
        other = {"spots": "sq_imputer.tl.predict", "genes": "sq_imputer.tl.sequence_prior"}[found.card.rows]
        able = [one for one in list_models() if get_model(one).card.rows == rows]
        raise BadInput(
            f"'{name}' reads {own[found.card.rows]}: it is asked by {other}. Models of {own[rows]}: {listed(able, 20)}."
        )
    return found


def _resolved(model, config, genes: Sequence[str] | None, knowledge: GeneKnowledge | None) -> Predictor:
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.predictor.folder import load
    from sq_imputer.predictor.told import unfitted

    if external.is_external(model) and knowledge is None:
        return external.predictor(model, config, None if genes is None or isinstance(genes, Integral) else genes)
    if isinstance(model, str) and model in list_models():
        model = get_model(model)
    if isinstance(model, type) and issubclass(model, Predictor):
        if isinstance(config, Mapping):
            config = of_mapping(model.Config, config, model.card.name)
        return unfitted(model, config, knowledge)
    if config is not None:
        raise BadInput(
            "config goes with the name of a model; a fitted or saved one has its own. How a fitted stem draws is "
            "changed by model.sampling(keep_samples=...)."
        )
    if isinstance(model, Predictor) and not model.fitted and knowledge is not None:
        return type(model)(model.config, knowledge)
    if isinstance(model, Predictor):
        return zero_shot.resolved(_checked(model), genes, knowledge)
    if isinstance(model, str | Path):
        if Path(model).is_dir():
            return zero_shot.resolved(_checked(load(model)), genes, knowledge)
        raise MissingKey(
            f"no model '{model}'; there are {listed(list_models(), 20)}, or give a folder written by predictor.save()."
        )
    raise BadInput(f"model is a {type(model).__name__}; expected a name, a folder, or a Predictor.")


def shelf_of(predictor: Predictor, weights: Weights | None = None, dense: bool | None = None) -> Shelf:
    """The encoders of a run, with the weights that a verb was given; of a fitted model only those of its fit.

    Raises
    ------
    BadInput
        If weights are not there, not for these encoders, or not those of the fit.
    """
    names = predictor.needs.encoders
    if dense and not names:
        raise BadInput(f"dense=True, but '{predictor.card.name}' reads pixels, crop by crop. Leave out dense=.")
    known = predictor.encoded if predictor.fitted else {}
    by_tokens = [name for name, made_by in known.items() if made_by.get("described")]
    if by_tokens and dense is False:
        raise BadInput(
            f"dense=False, but this '{predictor.card.name}' was fitted on patch tokens of encoder '{by_tokens[0]}', "
            "which windows described together have. Leave out dense=, or fit it again crop by crop."
        )
    shelf = Shelf(weights_of(weights, names), known or None, True if by_tokens else dense)
    if predictor.fitted and "texture" in names:
        shelf.get("texture")  # made of code alone: whether it still is that of the fit is known at once
    return shelf


def _checked(predictor: Predictor) -> Predictor:
    """A predictor whose encoders still give the features that it was fitted on."""
    needs = predictor.needs
    if predictor.fitted and needs.encoders:
        cards = [encoder_card(name) for name in needs.encoders]
        gives = sum(card.dim for card in cards) * len(needs.views)
        if gives != predictor.sizes["features"]:
            raise BadInput(
                f"the weights of '{predictor.card.name}' are for {predictor.sizes['features']}-d features, and its "
                f"encoders {listed(needs.encoders)} give {gives}. Use the encoders of its fit, or fit anew."
            )
    return predictor
