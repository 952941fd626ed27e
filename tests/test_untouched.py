"""No verb changes what it is given: every slot in memory and every file of the store, but for its named output."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from dna import small_model, windows_of

import sq_imputer as sqi
from sq_imputer import CropSpec
from sq_imputer.section.slide import Slide

SMALL = {"size_px": 32, "context_um": ()}
AUXILIARY = {"primary": 2, "epochs": 2, "size_px": 32, "context_um": (), "calibration": 0}
RECALL = {**SMALL, "width": 16, "heads": 2, "head_width": 8, "epochs": 2, "batch_size": 32}


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> SimpleNamespace:
    """A section with a result of every verb that writes, one of another patient, a fitted model, and scores."""
    import spatialdata
    from spatialdata.transformations import Scale, set_transformation

    folder = tmp_path_factory.mktemp("stores")
    sections = sqi.datasets.toy(2, size_px=640, mpp=1.25, seed=11)
    for name, section in zip(("mine", "other"), sections.values(), strict=True):
        set_transformation(section.images["he"], Scale([1, 2], axes=("x", "y")), "bent")
        section.write(folder / name)
    sdata, other = (spatialdata.read_zarr(folder / name) for name in ("mine", "other"))
    fitted = sqi.tl.fit(other, "ridge", genes=6, config=SMALL)
    sqi.tl.predict(sdata, fitted)
    with pytest.warns(UserWarning, match="not below chance"):  # after two epochs
        sqi.tl.predict(sdata, "mclstexp", reference=other, genes=6, config=RECALL, key_added="recalled")
    sqi.tl.domains(sdata, n_domains=3, method="kmeans")
    sqi.tl.trust(sdata, n_null=20)
    sqi.tl.explain(sdata, fitted.genes[0], model=fitted, spots=sdata.tables["imputed"].obs_names[:2], grid=2)
    slide = Slide.from_sdata(other)
    board = sqi.bench.run(sqi.bench.strips_of(slide, 2), {"ridge": sqi.get_model("ridge")(fitted.config)}, n_genes=6)
    scores = board.assign(section="other")
    return SimpleNamespace(folder=folder, fitted=fitted, scores=scores)


@pytest.fixture
def given(stores, tmp_path) -> SimpleNamespace:
    """Both sections as read from copies of their stores, for one verb."""
    return _read(stores, tmp_path)


@pytest.fixture(scope="module")
def lasting(stores, tmp_path_factory) -> SimpleNamespace:
    """The same for all verbs that write nothing: what they find is what the last of them left."""
    return _read(stores, tmp_path_factory.mktemp("lasting"))


def _read(stores: SimpleNamespace, folder: Path) -> SimpleNamespace:
    import spatialdata

    for name in ("mine", "other"):
        shutil.copytree(stores.folder / name, folder / name)
    sdata, other = (spatialdata.read_zarr(folder / name) for name in ("mine", "other"))
    gene, spots = stores.fitted.genes[0], list(sdata.tables["imputed"].obs_names[:2])
    slides = [Slide.from_sdata(one) for one in (sdata, other)]
    models = {"ridge": sqi.get_model("ridge")(stores.fitted.config)}
    scores = stores.scores.copy()
    known = {"fitted": stores.fitted, "gene": gene, "spots": spots, "slides": slides, "models": models}
    before = [(slots(one), files(one)) for one in (sdata, other)]
    return SimpleNamespace(sdata=sdata, other=other, scores=scores, before=before, **known)


def told(given: SimpleNamespace) -> dict:
    """Models that know what genes are called, for some genes that the fitted one has."""
    genes, bilinear = list(given.fitted.genes), sqi.get_model("bilinear")
    model = bilinear(bilinear.Config(size_px=32, context_um=()), sqi.GeneKnowledge.lexical(genes))
    return {"models": {"bilinear": model}, "measured": given.models["ridge"], "genes": genes, "n_folds": 2}


def mapped(given: SimpleNamespace):
    """Toy DNA of the genes of the section, and a map of two of them."""
    windows = windows_of(given.sdata)
    sqi.tl.regulatory_map(given.sdata, windows, small_model(), genes=windows.names[:2], share=0.3, progress=False)
    return windows


# Each verb, how it is called, and what it may write: slots of the object, which are folders of the store as well.
CASES: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "pp.pixel_size": (lambda g: sqi.pp.pixel_size(g.sdata), ()),
    "pp.crops": (lambda g: sqi.pp.crops(g.sdata, CropSpec(100.0, 16))[:3], ()),
    "pp.embed": (
        lambda g: sqi.pp.embed(g.sdata, spec=CropSpec(100.0, 32)),
        ("tables/table/obsm/X_texture", "tables/table/uns/sq_imputer"),
    ),
    "pp.quality": (lambda g: sqi.pp.quality([g.sdata, g.other]), ()),
    "pp.alignment": (lambda g: sqi.pp.alignment(g.sdata, search_um=50), ()),
    "pp.grid": (lambda g: sqi.pp.grid(g.sdata, spacing_um=200.0), ("shapes/grid",)),
    "pp.tissue": (lambda g: sqi.pp.tissue(g.sdata), ("labels/tissue",)),
    "pp.straighten": (
        lambda g: sqi.pp.straighten(g.sdata, "he", coordinate_system="bent"),
        ("images/he_straight",),
    ),
    "tl.fit": (lambda g: sqi.tl.fit([g.sdata, g.other], "ridge", genes=3, config=SMALL), ()),
    "tl.predict out of fold": (
        lambda g: sqi.tl.predict(g.sdata, "ridge", genes=3, n_folds=2, buffer_um=0, config=SMALL, key_added="more"),
        ("tables/more",),
    ),
    "tl.predict of a target": (
        lambda g: sqi.tl.predict(g.sdata, "ridge", target="obs:nuclei", n_folds=2, buffer_um=0, config=SMALL),
        ("tables/imputed_nuclei",),
    ),
    "tl.predict by a reference": (
        lambda g: sqi.tl.predict(g.sdata, "ridge", reference=g.other, genes=3, config=SMALL, key_added="more"),
        ("tables/more",),
    ),
    "tl.predict into a table": (
        lambda g: sqi.tl.predict(g.sdata, g.fitted, layer_added="again"),
        (
            "tables/imputed/X",
            "tables/imputed/layers/measured",
            "tables/imputed/layers/again*",
            "tables/imputed/obs/again_ood",
            "tables/imputed/obs/again_record",
            "tables/imputed/obs/total_counts",
            "tables/imputed/var/again_constant",
            "tables/imputed/obsm/X_texture",
            "tables/imputed/obsm/spatial",
            "tables/imputed/uns/sq_imputer/again",
            "tables/imputed/uns/sq_imputer/embeddings",
        ),
    ),
    "tl.score": (
        lambda g: sqi.tl.score(g.sdata, reference=g.other),
        ("tables/imputed/var/ridge_pearson*", "tables/imputed/var/ceiling", "tables/imputed/var/image_eps*"),
    ),
    "tl.correct": (
        lambda g: sqi.tl.correct(g.sdata, "ridge", components=2),
        (
            "tables/imputed/X",
            "tables/imputed/layers/ridge_corrected*",
            "tables/imputed/obs/ridge_corrected*",
            "tables/imputed/var/ridge_corrected_share",
            "tables/imputed/var/ridge_corrected_slope",
            "tables/imputed/uns/sq_imputer/ridge_corrected",
        ),
    ),
    "tl.trust": (
        lambda g: sqi.tl.trust(g.sdata, n_null=40),
        (
            *(f"tables/imputed/var/ridge_{name}" for name in ("skill*", "fdr", "reliable", "reason", "coverage")),
            *(f"tables/imputed/obs/ridge_{name}" for name in ("reliable", "reason")),
            *(f"tables/imputed/layers/ridge_{name}" for name in ("lower", "upper")),
            "tables/imputed/uns/sq_imputer/ridge",
        ),
    ),
    "tl.domains": (
        lambda g: sqi.tl.domains(g.sdata, n_domains=2, method="kmeans", key_added="more", shapes_added="outlines"),
        ("tables/imputed/obs/more", "tables/imputed/uns/more*", "shapes/outlines"),
    ),
    "tl.agreement": (lambda g: sqi.tl.agreement(g.sdata, "stroma", n_random=2), ()),
    "tl.explain": (
        lambda g: sqi.tl.explain(g.sdata, g.gene, model=g.fitted, spots=g.spots, grid=2, key_added="more"),
        ("images/more", "tables/more_spots"),
    ),
    "tl.sequence_prior": (
        lambda g: sqi.tl.sequence_prior(g.sdata, windows_of(g.sdata), small_model()),
        (
            *(f"tables/table/var/seq2exp{ending}" for ending in ("", "_std", "_fold")),
            *("tables/table/varm/X_seq2exp", "tables/table/uns/sq_imputer"),
        ),
    ),
    "tl.regulatory_map": (mapped, ("tables/regulatory_map",)),
    "tl.in_silico": (
        lambda g: sqi.tl.in_silico(g.sdata, mapped(g), small_model(), n_controls=3),
        ("tables/regulatory_map",),
    ),
    "tl.in_silico of edits": (
        lambda g: sqi.tl.in_silico(
            g.sdata,
            windows_of(g.sdata),
            small_model(),
            edits=pd.DataFrame({"gene": [g.sdata.tables["table"].var_names[0]], "start": [9], "motif": ["ACGT"]}),
        ),
        (),
    ),
    "pl.regulatory_map": (
        lambda g: sqi.pl.regulatory_map(g.sdata, g.sdata.tables["table"].var_names[0], windows=mapped(g)),
        ("tables/regulatory_map",),
    ),
    "tl.retrieved": (lambda g: sqi.tl.retrieved(g.sdata, key_added="recalled"), ()),
    "tl.fit of a target": (lambda g: sqi.tl.fit(g.other, "ridge", target="obs:nuclei", config=SMALL), ()),
    "pl.compare": (lambda g: sqi.pl.compare(g.sdata, g.gene), ()),
    "pl.domains": (lambda g: sqi.pl.domains(g.sdata), ()),
    "pl.explain": (lambda g: sqi.pl.explain(g.sdata, g.gene), ()),
    "pl.genes_correlation": (lambda g: sqi.pl.genes_correlation(g.sdata), ()),
    "pl.quality": (lambda g: sqi.pl.quality(sqi.pp.quality(g.sdata)), ()),
    "pl.skill": (lambda g: sqi.pl.skill(g.scores), ()),
    "pl.alignment": (lambda g: sqi.pl.alignment(sqi.pp.alignment(g.sdata, search_um=50)), ()),
    "pl.trust": (lambda g: sqi.pl.trust(g.sdata), ()),
    "pl.uncertainty": (lambda g: sqi.pl.uncertainty(g.sdata, g.gene), ()),
    "pl.interactive": (lambda g: sqi.pl.interactive(g.sdata, g.gene).html(), ()),
    "pl.zero_shot": (lambda g: sqi.pl.zero_shot(g.scores.assign(similarity=0.5)), ()),
    "pl.history": (lambda g: sqi.pl.history(sqi.tl.fit(g.other, "agl", genes=6, config=AUXILIARY)), ()),
    "pl.leaderboard": (lambda g: sqi.pl.leaderboard(g.scores), ()),
    "bench.leave_one_out": (lambda g: sqi.bench.leave_one_out(g.slides), ()),
    "bench.strips_of": (lambda g: sqi.bench.strips_of(g.slides[0], 2), ()),
    "bench.outcomes": (
        lambda g: list(sqi.bench.outcomes(sqi.bench.leave_one_out(g.slides), g.models, n_genes=3)),
        (),
    ),
    "bench.pairs": (lambda g: sqi.bench.pairs(g.slides, [g.gene], spec=sqi.CropSpec(100, 32)), ()),
    "bench.latent": (lambda g: sqi.bench.latent(g.sdata, "truth"), ()),
    "bench.audit": (lambda g: sqi.bench.audit({"train": g.slides[:1], "test": g.slides[1:]}, allow=["patient"]), ()),
    "bench.leave_genes_out": (lambda g: sqi.bench.leave_genes_out(sqi.bench.strips_of(g.slides[0], 2), **told(g)), ()),
    "bench.run": (lambda g: sqi.bench.run(sqi.bench.leave_one_out(g.slides), g.models, n_genes=3), ()),
}


# Take tables and arrays, or files and their own folder, and see neither objects nor slides.
OF_TABLES = {
    f"bench.{name}"
    for name in (
        *("batch_table", "compare", "contrast", "expression_probe", "label_probe", "over_sections", "protocol"),
        *("published_split", "read_pairs", "retrieval", "run_config", "scores_of"),
    )
}


def test_every_public_verb_has_a_case() -> None:
    verbs = {
        f"{space}.{name}"
        for space in ("pp", "tl", "pl", "bench")
        for name in getattr(sqi, space).__all__
        if inspect.isfunction(getattr(getattr(sqi, space), name))
    }
    assert {name.split()[0] for name in CASES} == verbs - OF_TABLES


@pytest.mark.parametrize("name", CASES)
def test_verbs_change_nothing_but_their_output(name, request) -> None:
    import matplotlib.pyplot as plt

    call, outputs = CASES[name]
    given = request.getfixturevalue("given" if outputs else "lasting")
    scores, weights, before = given.scores.copy(), given.fitted.sha256, given.before
    call(given)
    plt.close("all")
    after = [(slots(one), files(one)) for one in (given.sdata, given.other)]
    assert after[1] == before[1]  # the reference has no output at all
    assert not _unnamed(before[0][0], after[0][0], outputs)
    groups = {str(part / "zarr.json") for one in outputs for part in Path(one).parents}  # which list what is in them
    assert not _unnamed(before[0][1], after[0][1], outputs) - groups
    assert bool(outputs) == (after[0] != before[0])
    pd.testing.assert_frame_equal(given.scores, scores)
    assert given.fitted.sha256 == weights


def test_a_change_that_was_not_named_is_seen(given) -> None:
    before = slots(given.sdata)
    given.sdata.tables["table"].obs["patient"] = "X"
    given.sdata.shapes["spots"].loc[0, "radius"] = 1.0
    given.sdata.attrs["patient"] = "X"
    assert _unnamed(before, slots(given.sdata), ("shapes/grid",)) == {
        "tables/table/obs/patient",
        "shapes/spots",
        "attrs",
    }


def _unnamed(before: dict, after: dict, outputs: tuple[str, ...]) -> set[str]:
    """Names of what is new, gone or another, and no output or part of one."""
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return {name for name in changed if not any(fnmatch(name, one) or fnmatch(name, f"{one}/*") for one in outputs)}


def files(sdata) -> dict[str, str]:
    """Hash of every file in the store."""
    paths = (path for path in Path(sdata.path).rglob("*") if path.is_file())
    return {str(path.relative_to(sdata.path)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def slots(sdata) -> dict[str, str]:
    """Hash of every element in memory; of tables, of every slot."""
    from spatialdata.transformations import get_transformation

    found = {"attrs": _hash(json.dumps(sdata.attrs, sort_keys=True, default=str))}
    for kind, name, element in sdata.gen_elements():
        if kind == "tables":
            found |= {f"{kind}/{name}/{slot}": _hash(value) for slot, value in _slots(element)}
        else:
            places = repr(sorted(get_transformation(element, get_all=True).items()))
            found[f"{kind}/{name}"] = _hash(places) + _hash(element)
    return found


def _slots(table: AnnData):
    yield "X", table.X
    for slot in ("layers", "obsm", "varm", "obsp"):
        held = getattr(table, slot)
        yield from ((f"{slot}/{key}", held[key]) for key in held if key is not None)  # None is X
    for slot in ("obs", "var"):
        frame = getattr(table, slot)
        yield f"{slot}/_index", pd.Series(frame.index)
        yield from ((f"{slot}/{column}", frame[column]) for column in frame)
    for key, value in table.uns.items():
        parts = value if key == "sq_imputer" else {"": value}
        yield from ((f"uns/{key}/{part}".rstrip("/"), repr(held)) for part, held in parts.items())


def _hash(value) -> str:
    if hasattr(value, "geometry"):
        value = value.to_wkb().to_csv()
    elif isinstance(value, pd.Series):
        value = value.to_csv() + str(value.dtype)
    elif hasattr(value, "children"):  # levels of an image
        value = "".join(_hash(next(iter(value[level].ds.values()))) for level in value)
    if not isinstance(value, str):
        value = value.toarray() if hasattr(value, "toarray") else np.asarray(value)
        value = f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    return hashlib.sha256(value if isinstance(value, bytes) else value.encode()).hexdigest()
