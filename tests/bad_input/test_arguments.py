"""Arguments that verbs cannot use: rows 47 to 50 of the table of bad input, and the same for all other verbs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import sq_imputer as sqi
from sq_imputer import BadInput, CropSpec, MissingKey, Plan
from sq_imputer.section.slide import Slide


@pytest.fixture
def bench(predicted) -> SimpleNamespace:
    slide = Slide.from_sdata(predicted)
    return SimpleNamespace(slide=slide, cases=sqi.bench.strips_of(slide, 3), model=sqi.get_model("ridge")())


def predict(sdata, **given):
    sqi.tl.predict(sdata, **{"model": "ridge", "key_added": "more", **given})


def row(name: str, given: dict, *holds: str, error=BadInput):
    return pytest.param(given, error, holds, id=name)


# tl.predict and tl.fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "holds"),
    [
        row("47-slash", {"key_added": "a/b"}, "'a/b'", "letters, digits", "key_added"),
        row("47-parent", {"key_added": ".."}, "'..'", "letters, digits", "key_added"),
        row("47-space", {"key_added": "a b"}, "'a b'", "letters, digits", "key_added"),
        row("47-underscores", {"key_added": "__x"}, "'__x'", "no '__' in front", "key_added"),
        row("47-number", {"key_added": 3}, "3", "letters, digits", "key_added"),
        row("47-layer", {"layer_added": "a/b"}, "'a/b'", "letters, digits", "layer_added"),
        row("47-layer-number", {"layer_added": 3}, "3", "letters, digits", "layer_added"),
        row("47-layer-reserved", {"layer_added": "measured"}, "'measured'", "layer_added"),
        row("48-long", {"key_added": "x" * 300}, "300 bytes", "200 or fewer"),
        row("49-layer-taken", {"key_added": "imputed", "genes": 12}, "'imputed'", "'ridge' already", "overwrite=True"),
        row("49-panel", {"key_added": "imputed", "layer_added": "a", "genes": 5}, "another panel", "12 genes", "now 5"),
        row("49-not-ours", {"key_added": "table"}, "tables['table'] is taken", "key_added"),
        row("49-other-kind", {"key_added": "spots"}, "'spots'", "shapes", "key_added"),
        row("49-case", {"key_added": "Table"}, "'Table'", "'table'", "case"),
        row("50-no-genes", {"genes": []}, "genes is empty", "at least one"),
        row("50-genes-zero", {"genes": 0}, "genes is 0", "positive"),
        row("50-genes-fraction", {"genes": 1.5}, "genes is 1.5", "whole number"),
        row("50-genes-true", {"genes": True}, "genes is True", "list of names"),
        row("50-genes-text", {"genes": "NUC1"}, "the text 'NUC1'", "['NUC1']"),
        row("50-unit", {"unit": "cpm"}, "no unit 'cpm'", "'log1p_cp10k'"),
        row("50-no-folds", {"n_folds": 0}, "n_folds is 0", "2 or more"),
        row("50-one-fold", {"n_folds": 1}, "n_folds is 1", "2 or more"),
        row("50-folds-text", {"n_folds": "5"}, "n_folds is '5'", "whole number"),
        row("50-folds-fraction", {"n_folds": 2.5}, "n_folds is 2.5", "whole number"),
        row("50-many-folds", {"n_folds": 1000}, "n_folds is 1000", "59 measured spots"),
        row("50-buffer-nan", {"buffer_um": np.nan}, "buffer_um is nan", "0 or more"),
        row("50-buffer-negative", {"buffer_um": -1}, "buffer_um is -1", "0 or more"),
        row("50-buffer-text", {"buffer_um": "100"}, "buffer_um is '100'", "a number"),
        row("50-buffer-wide", {"buffer_um": 1e9}, "0 of 59 spots are left", "smaller buffer_um"),
        row("50-config-unknown", {"config": {"x": 1}}, "config names 'x'", "'alpha'"),
        row("50-config-type", {"config": {"alpha": "x"}}, "Config.alpha is 'x'", "float"),
        row("50-config-nan", {"config": {"extent_um": np.nan}}, "Config.extent_um is nan"),
        row("50-config-range", {"config": {"alpha": -1.0}}, "ridge.Config.alpha is -1", "above 0"),
        row("50-config-other", {"config": 3}, "config of 'ridge' is a int", "ridge.Config"),
        row("50-encoder", {"config": {"encoders": ("x",)}}, "no encoder 'x'", "'texture'", error=MissingKey),
        row("50-plan", {"plan": {"epochs": 3}}, "plan is a dict", "Plan(...)"),
        row("50-mpp", {"mpp": "a"}, "mpp is 'a'", "a number"),
        row("50-technology", {"technology": "x"}, "no technology 'x'", "'visium'", error=MissingKey),
        row("50-outside", {"outside": "x"}, "outside is 'x'", "'pad'"),
        row("50-layer", {"layer": "x"}, "no layer 'x'", "table 'table'", error=MissingKey),
        row("50-image", {"image_key": "HE"}, "no image 'HE'", "'he'", "image_key=", error=MissingKey),
        row("50-shapes", {"shapes_key": "x"}, "no shapes 'x'", "'spots'", "shapes_key=", error=MissingKey),
        row("50-model", {"model": "rigde"}, "no model 'rigde'", "'ridge'", error=MissingKey),
        row("50-model-type", {"model": 3}, "model is a int", "a name, a folder, or a Predictor"),
        row("50-reference", {"reference": 3}, "int", "expected a SpatialData object"),
        row("50-no-reference", {"reference": []}, "no sections", "at least one"),
        row("50-reference-type", {"reference": ["x.zarr"]}, "a section is a str", "SpatialData"),
        row("50-object", {"sdata": None}, "sdata is a NoneType", "read_zarr"),
        row("x-device-not-there", {"plan": Plan(device="cuda:7")}, "'cuda:7' is not available", "cpu", "'auto'"),
        row("x-device-unknown", {"plan": Plan(device="gpu")}, "'gpu' is not available", "cpu", "'auto'"),
    ],
)
def test_predict_checks_its_arguments_before_it_computes(given, error, holds, predicted, refused) -> None:
    refused(predicted, lambda: predict(**{"sdata": predicted, **given}), error, *holds)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"n_folds": 1000}, id="x-folds"),
        pytest.param({"plan": Plan(device="cuda:7")}, id="x-device"),
    ],
)
def test_a_run_that_is_refused_leaves_no_journal_behind(given, predicted, refused) -> None:
    refused(predicted, lambda: predict(predicted, resume=True, **given), BadInput)
    assert [path.name for path in predicted.path.parent.iterdir()] == [predicted.path.name]


@pytest.mark.parametrize(
    ("given", "error", "holds"),
    [
        row("50-object", {"sdata": "x.zarr"}, "a section is a str", "SpatialData"),
        row("50-no-object", {"sdata": None}, "NoneType", "SpatialData"),
        row("50-no-sections", {"sdata": {}}, "no sections", "at least one"),
        row("50-model", {"model": "x"}, "no model 'x'", "'ridge'", error=MissingKey),
        row("50-unit", {"unit": "x"}, "no unit 'x'"),
        row("50-plan", {"plan": 3}, "plan is a int"),
        row("50-unmeasured", {"table_key": None}, "'P1'", "no table of counts", "table_key="),
        row("x-device", {"plan": Plan(device="cuda:7")}, "'cuda:7' is not available"),
    ],
)
@pytest.mark.parametrize("model", ["ridge", "nsl"])
def test_fit_checks_its_arguments_before_it_computes(given, error, holds, model, predicted, refused) -> None:
    refused(predicted, lambda: sqi.tl.fit(**{"sdata": predicted, "model": model, **given}), error, *holds)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        pytest.param(field, value, expected, id=f"50-{field}={value!r}")
        for field, expected, values in [
            ("batch_size", "whole number, 1 or more", (0, -1, "32", 2.5, True)),
            ("epochs", "whole number, 1 or more", (0, "5")),
            ("patience", "whole number, 1 or more", (0, 1.5, None)),
            ("seed", "whole number", (-1, 1.5, "a", None, 2**70)),
            ("clip", "0 or more", (-1, np.nan, "1", None)),
            ("memory_mb", "0 or more", (-5, np.nan, "1")),
            ("validation", "0", (1, -1, np.nan, "a")),
            ("precision", "'32-true'", ("64-true", "bf16-true", "32", None)),
            ("device", "str", (None, 3)),
            ("refit", "bool", ("no", 1)),
            ("progress", "bool", (None,)),
        ]
        for value in values
    ],
)
def test_a_plan_names_the_field_that_is_wrong(field, value, expected, refused) -> None:
    refused(None, lambda: Plan(**{field: value}), BadInput, f"Plan.{field} is {value!r}", expected)


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        pytest.param({"extent_um": "a"}, ["CropSpec.extent_um is 'a'"], id="50-extent-text"),
        pytest.param({"extent_um": np.inf}, ["CropSpec.extent_um is inf"], id="50-extent-inf"),
        pytest.param({"extent_um": 0}, ["CropSpec.extent_um is 0", "positive"], id="50-extent-zero"),
        pytest.param({"size_px": 1.5}, ["CropSpec.size_px is 1.5", "whole number"], id="50-size-fraction"),
        pytest.param({"size_px": "a"}, ["CropSpec.size_px is 'a'", "whole number"], id="50-size-text"),
    ],
)
def test_a_crop_names_the_side_that_is_wrong(given, holds, refused) -> None:
    refused(None, lambda: CropSpec(**given), BadInput, *holds)


# Other verbs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "holds"),
    [
        row("models", {"models": "x"}, "no prediction 'x'", "'ridge'", error=MissingKey),
        row("models-type", {"models": 3}, "models is 3", "list of names"),
        row("key", {"key": "x"}, "no prediction in tables['x']", "tl.predict", error=MissingKey),
        row("per", {"per": "x"}, "per is 'x'", "'section'"),
        row("device", {"device": "gpu"}, "'gpu' is not available"),
        row("seed", {"seed": "a"}, "seed is 'a'", "whole number"),
        row("seed-alone", {"seed": 1.5, "baselines": False}, "seed is 1.5", "whole number"),
        row("table", {"table_key": "x"}, "no table 'x'", "'table'", error=MissingKey),
        row("object", {"sdata": None}, "sdata is a NoneType"),
    ],
)
def test_score_checks_its_arguments_before_it_computes(given, error, holds, predicted, refused) -> None:
    refused(predicted, lambda: sqi.tl.score(**{"sdata": predicted, **given}), error, *holds)


@pytest.mark.parametrize(
    ("given", "error", "holds"),
    [
        row("use", {"use": "x"}, "use is 'x'", "'prediction'"),
        row("method", {"method": "x"}, "method is 'x'", "'leiden'"),
        row("one-domain", {"n_domains": 1}, "n_domains is 1", "2 or more"),
        row("fractional-domains", {"n_domains": 2.5}, "n_domains is 2.5", "whole number"),
        row("many-domains", {"n_domains": 1000}, "n_domains is 1000", "59 spots"),
        row("resolution", {"n_domains": None, "method": "leiden", "resolution": "a"}, "resolution is 'a'", "a number"),
        row("n_pcs", {"n_pcs": 2.5}, "n_pcs is 2.5", "whole number"),
        row("spatial_weight", {"spatial_weight": np.nan}, "spatial_weight is nan", "from 0 to 1"),
        row("smooth", {"smooth": 1.5}, "smooth is 1.5", "whole number"),
        row("seed", {"seed": -1}, "seed is -1", "whole number"),
        row("device", {"device": "gpu"}, "'gpu' is not available"),
        row("layer", {"layer": "x"}, "no prediction 'x'", "'ridge'", error=MissingKey),
        row("key", {"key": "x"}, "no prediction in tables['x']", error=MissingKey),
        row("key_added", {"key_added": "a/b"}, "key_added is 'a/b'", "letters, digits"),
        row("long", {"key_added": "x" * 300}, "key_added is 'xxx", "200 bytes"),
        row("taken", {"key_added": "domain"}, "'domain' already", "overwrite=True"),
        row("not-ours", {"key_added": "ridge_fold"}, "not written by tl.domains"),
        row("shapes_added", {"shapes_added": "spots"}, "'spots' is taken"),
        row("object", {"sdata": None}, "sdata is a NoneType"),
    ],
)
def test_domains_check_their_arguments_before_they_compute(given, error, holds, predicted, refused) -> None:
    call = {"sdata": predicted, "n_domains": 3, "method": "kmeans", "key_added": "other", **given}
    refused(predicted, lambda: sqi.tl.domains(**call), error, *holds)


@pytest.mark.parametrize(
    ("given", "error", "holds"),
    [
        row("labels", {"labels": "x"}, "no 'x' in obs", error=MissingKey),
        row("labels-type", {"labels": 3}, "labels is a int", "Series"),
        row("domain", {"domain": "x"}, "no 'x' in tables['imputed'].obs", "tl.domains", error=MissingKey),
        row("n_random", {"n_random": 0}, "n_random is 0", "1 or more"),
        row("seed", {"seed": "a"}, "seed is 'a'", "whole number"),
        row("device", {"device": "gpu"}, "'gpu' is not available"),
    ],
)
def test_agreement_checks_its_arguments_before_it_computes(given, error, holds, predicted, refused) -> None:
    refused(predicted, lambda: sqi.tl.agreement(**{"sdata": predicted, **given}), error, *holds)


@pytest.mark.parametrize(
    ("given", "error", "holds"),
    [
        row("genes", {"genes": "x"}, "no gene 'x'", "'ridge'", error=MissingKey),
        row("genes-type", {"genes": 3}, "genes is 3", "list of names"),
        row("model", {"model": "ridge"}, "'ridge' is not fitted"),
        row("method", {"method": "x"}, "'x'", "'occlusion'"),
        row("spots", {"spots": "x"}, "no spot 'x'", "'P1'", error=MissingKey),
        row("spots-type", {"spots": 3}, "spots is 3", "list of names"),
        row("mpp", {"mpp": 1000}, "mpp is 1000", "µm per pixel"),
        row("mpp-text", {"mpp": "a"}, "mpp is 'a'"),
        row("grid", {"grid": 0}, "grid is 0", "from 1 to 64"),
        row("grid-fraction", {"grid": 2.5}, "grid is 2.5", "whole number"),
        row("baseline", {"baseline": "x"}, "baseline is 'x'", "'glass'"),
        row("batch_size", {"batch_size": 0}, "batch_size is 0", "1 or more"),
        row("seed", {"seed": "a"}, "seed is 'a'", "whole number"),
        row("key_added", {"key_added": "he"}, "'he' is taken"),
        row("object", {"sdata": None}, "sdata is a NoneType"),
        row("device", {"device": "gpu"}, "'gpu' is not available"),
    ],
)
def test_explain_checks_its_arguments_before_it_computes(given, error, holds, predicted, fitted, refused) -> None:
    call = {"sdata": predicted, "genes": fitted.genes[0], "model": fitted, **given}
    refused(predicted, lambda: sqi.tl.explain(**call), error, *holds)


@pytest.mark.parametrize(
    ("given", "error", "holds"),
    [
        row("layer", {"layer": "x"}, "no prediction 'x'", error=MissingKey),
        row("not-retrieved", {}, "not made by retrieval", error=MissingKey),
        row("key", {"key_added": "x"}, "no prediction in tables['x']", error=MissingKey),
    ],
)
def test_retrieved_checks_its_arguments(given, error, holds, predicted, refused) -> None:
    refused(predicted, lambda: sqi.tl.retrieved(**{"sdata": predicted, "layer": "ridge", **given}), error, *holds)


@pytest.mark.parametrize(
    ("verb", "given", "error", "holds"),
    [
        pytest.param("grid", {"spacing_um": "a"}, BadInput, ["spacing_um is 'a'"], id="grid-text"),
        pytest.param("grid", {"spacing_um": np.inf}, BadInput, ["spacing_um is inf"], id="grid-inf"),
        pytest.param("grid", {"spacing_um": 0}, BadInput, ["spacing_um is 0", "positive"], id="grid-zero"),
        pytest.param("grid", {"spacing_um": 1e9}, BadInput, ["no point", "smaller spacing_um"], id="grid-wide"),
        pytest.param("grid", {"spacing_um": 1e-9}, BadInput, ["6.4e+23 points", "larger"], id="grid-narrow"),
        pytest.param("grid", {"diameter_um": np.nan}, BadInput, ["diameter_um is nan"], id="grid-diameter"),
        pytest.param("grid", {"key_added": "spots"}, BadInput, ["'spots' is taken"], id="grid-taken"),
        pytest.param("grid", {"coordinate_system": "x"}, MissingKey, ["'he'", "'x'", "'um'"], id="grid-system"),
        pytest.param("grid", {"sdata": None}, BadInput, ["sdata is a NoneType"], id="grid-object"),
        pytest.param("crops", {"spec": (112, 224)}, BadInput, ["spec is a tuple", "CropSpec"], id="crops-spec"),
        pytest.param("crops", {"shapes_key": "x"}, MissingKey, ["no shapes 'x'"], id="crops-shapes"),
        pytest.param("crops", {"sdata": "x.zarr"}, BadInput, ["sdata is a str", "read_zarr"], id="crops-object"),
        pytest.param("embed", {"encoder": "x"}, MissingKey, ["no encoder 'x'", "'texture'"], id="embed-encoder"),
        pytest.param("embed", {"encoder": 3}, MissingKey, ["no encoder '3'", "'texture'"], id="embed-encoder-type"),
        pytest.param("embed", {"spec": 3}, BadInput, ["spec is a int", "CropSpec"], id="embed-spec"),
        pytest.param("embed", {"key_added": "a/b"}, BadInput, ["key_added is 'a/b'"], id="embed-key"),
        pytest.param("embed", {"key_added": ".."}, BadInput, ["key_added is '..'"], id="embed-parent"),
        pytest.param("embed", {"key_added": "x" * 300}, BadInput, ["200 bytes"], id="embed-long"),
        pytest.param("embed", {"device": "gpu"}, BadInput, ["'gpu' is not available"], id="embed-device"),
        pytest.param("embed", {"weights": "x"}, BadInput, ["'texture' has no weights"], id="embed-weights"),
        pytest.param("pixel_size", {"image_key": "x"}, MissingKey, ["no image 'x'", "'he'"], id="pixel-size-image"),
        pytest.param("pixel_size", {"mpp": [1]}, BadInput, ["mpp is [1]"], id="pixel-size-mpp"),
        pytest.param("pixel_size", {"technology": "x"}, MissingKey, ["no technology 'x'"], id="pixel-size-technology"),
    ],
)
def test_preprocessing_checks_its_arguments_before_it_computes(verb, given, error, holds, predicted, refused) -> None:
    refused(predicted, lambda: getattr(sqi.pp, verb)(**{"sdata": predicted, **given}), error, *holds)


@pytest.mark.parametrize(
    ("verb", "given", "error", "holds"),
    [
        pytest.param("compare", {"genes": 3}, BadInput, ["genes is 3"], id="compare-genes-type"),
        pytest.param("compare", {"genes": "x"}, MissingKey, ["no gene 'x'"], id="compare-gene"),
        pytest.param("compare", {"layer": "x"}, MissingKey, ["no layer 'x'", "'ridge'"], id="compare-layer"),
        pytest.param("compare", {"key": "x"}, MissingKey, ["'x'", "'imputed'"], id="compare-key"),
        pytest.param("compare", {"ax": 3}, BadInput, ["ax has shape"], id="compare-ax"),
        pytest.param("compare", {"sdata": None}, BadInput, ["sdata is a NoneType"], id="compare-object"),
        pytest.param("domains", {"domain": "x"}, MissingKey, ["no 'x'", "tables['imputed'].obs"], id="domains-column"),
        pytest.param("domains", {"sdata": None}, BadInput, ["sdata is a NoneType"], id="domains-object"),
        pytest.param("explain", {"key": "x"}, MissingKey, ["no map 'x'", "tl.explain"], id="explain-key"),
        pytest.param("explain", {"sdata": None}, BadInput, ["sdata is a NoneType"], id="explain-object"),
        pytest.param("genes_correlation", {"data": None}, BadInput, ["sdata is a NoneType"], id="correlation-object"),
        pytest.param("genes_correlation", {"genes": ["x"]}, MissingKey, ["no gene 'x'"], id="correlation-gene"),
        pytest.param("genes_correlation", {"n": "a"}, BadInput, ["n is 'a'", "whole"], id="correlation-n"),
        pytest.param("skill", {"table": 3}, BadInput, ["table is a int", "tl.score"], id="skill-table"),
        pytest.param("skill", {"metric": "x"}, MissingKey, ["no column 'x'"], id="skill-metric"),
        pytest.param("leaderboard", {"table": 3}, BadInput, ["table is a int", "bench.run"], id="leaderboard-table"),
        pytest.param("leaderboard", {"metric": "x"}, MissingKey, ["no score 'x'"], id="leaderboard-metric"),
        pytest.param("leaderboard", {"top": 0}, BadInput, ["top is 0", "1 or more"], id="leaderboard-top"),
    ],
)
def test_plots_check_their_arguments_before_they_draw(verb, given, error, holds, predicted, refused) -> None:
    import matplotlib.pyplot as plt

    scores = pd.DataFrame({"gene": ["A"], "predictor": ["ridge"], "case": ["c"], "shares_patient": [False]})
    first = {
        "compare": {"sdata": predicted, "genes": "GLD1"},
        "domains": {"sdata": predicted},
        "explain": {"sdata": predicted, "gene": "NUC1"},
        "genes_correlation": {"data": predicted},
    }
    call = {**first.get(verb, {"table": scores.assign(pearson=0.5)}), **given}
    before = plt.get_fignums()
    refused(predicted, lambda: getattr(sqi.pl, verb)(**call), error, *holds)
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("given", "error", "holds"),
    [
        row("no-cases", {"cases": []}, "no cases", "leave_one_out"),
        row("cases-type", {"cases": 3}, "no cases", "leave_one_out"),
        row("models-type", {"models": ["ridge"]}, "models", "get_model('ridge')"),
        row("models-names", {"models": {"ridge": "ridge"}}, "models", "get_model('ridge')"),
        row("no-genes", {"n_genes": 0}, "n_genes is 0", "1 or more"),
        row("genes-type", {"n_genes": "a"}, "n_genes is 'a'", "whole number"),
        row("unit", {"unit": "x"}, "no unit 'x'"),
        row("plan", {"plan": 3}, "plan is a int"),
        row("device", {"plan": Plan(device="cuda:7")}, "'cuda:7' is not available"),
    ],
)
def test_bench_checks_its_arguments_before_it_computes(given, error, holds, bench, refused) -> None:
    call = {"cases": bench.cases, "models": {"ridge": bench.model}, **given}
    refused(None, lambda: sqi.bench.run(**call), error, *holds)


@pytest.mark.parametrize(
    ("call", "holds"),
    [
        pytest.param(lambda slide: sqi.bench.strips_of(slide, 0), ["strips", "1 or more"], id="no-strips"),
        pytest.param(lambda slide: sqi.bench.strips_of(slide, 1), ["2 folds or more"], id="one-strip"),
        pytest.param(lambda slide: sqi.bench.strips_of(slide, "a"), ["strips is 'a'"], id="strips-text"),
        pytest.param(lambda slide: sqi.bench.strips_of(slide, 3, buffer_um=np.nan), ["buffer_um is nan"], id="buffer"),
        pytest.param(lambda slide: sqi.bench.leave_one_out(["A"]), ["a str", "Slide.from_sdata"], id="no-slide"),
        pytest.param(
            lambda slide: sqi.bench.leave_one_out([replace(slide, measured=np.zeros(len(slide), bool)), slide]),
            ["'P1'", "no counts"],
            id="unmeasured",
        ),
    ],
)
def test_cases_are_of_measured_slides(call, holds, bench, refused) -> None:
    refused(None, lambda: call(bench.slide), BadInput, *holds)
