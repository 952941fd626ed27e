from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from widget_names import GENES, QUICK, SMALL

import sq_imputer as sqi
from sq_imputer.progress import track
from sq_imputer.widget._region import ERRORS, PATCHES
from sq_imputer.widget._requests import Request
from sq_imputer.widget.session import Session

WAIT = 60


def done(job):
    assert job.wait(WAIT), "still at work"
    assert job.ok, job.error
    return job.result


def files(store) -> dict[str, str]:
    """Hashes of all files of a store, by path."""
    paths = sorted(path for path in Path(store).rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def fitted(home):
    """The name of a model that was fitted in the session."""
    return done(home.fit("ridge", GENES, config=SMALL))


def test_what_there_is(home):
    assert list(home.shapes()) == ["spots"] and home.measured_shapes() == ["spots"]
    assert home.predictions() == {"imputed": ["ridge"]} and home.image_key == "he"
    assert {"ridge", "stem", "mlp", "zoo:stpath"} <= set(home.cards())


def test_genes_are_found_by_their_letters_those_that_begin_with_them_first(home):
    names = list(home.sdata.tables["table"].var_names)
    assert home.genes(most=4) == names[:4]
    found = home.genes("uc1")
    assert "NUC1" in found and all("uc1" in name.lower() for name in found)
    assert home.genes("nuc")[0].startswith("NUC") and home.genes("no such gene") == []


def test_no_object_no_image_and_no_table_are_said(home):
    with pytest.raises(sqi.BadInput):
        Session("section.zarr")
    with pytest.raises(sqi.MissingKey, match="no image 'HE'; sdata has 'he'"):
        Session(home.sdata, "HE")
    with pytest.raises(sqi.MissingKey, match="no table 'counts'"):
        Session(home.sdata, table_key="counts")


@pytest.mark.filterwarnings("default:.*not in the table:UserWarning")
def test_an_error_comes_as_words_with_the_next_step_and_nothing_is_written(home, digest):
    before = digest(home.sdata)
    job = home.predict(Request("ridge", ["NOSUCH"], key_added="other", further=QUICK))
    assert job.wait(WAIT) and "NOSUCH" in job.error and "Traceback" not in job.error
    job = home.predict(Request("no_model", key_added="other"))
    assert job.wait(WAIT) and job.error.startswith("no model 'no_model'; there are")
    assert digest(home.sdata) == before


def test_a_prediction_cancelled_in_the_middle_of_a_fit_leaves_object_and_store_as_they_were(
    stored, digest, square, monkeypatch
):
    session, before, on_disk = Session(stored), digest(stored), files(stored.path)
    running = []

    def slow(self, sources, plan):  # in the middle of a fit
        for step in track(range(1000), "training", 1000):
            if step == 3:
                running[0].cancel()

    monkeypatch.setattr(sqi.get_model("mlp"), "optimize", slow)
    monkeypatch.setattr("sq_imputer.widget._job.Job.start", lambda job: running.append(job) or job)
    request = Request("mlp", GENES, "fine", session.region(square, 40.0), key_added="new", further=QUICK)
    job = session.predict(request)
    job._thread.start()
    assert job.wait(WAIT) and job.cancelled and not job.error, job.error
    assert job.step.label == "training" and 3 <= job.step.done <= 5
    assert digest(stored) == before and files(stored.path) == on_disk
    assert set(stored.shapes) == {"spots"} and "new" not in stored.tables


def test_a_slide_without_counts_is_predicted_on_a_drawn_grid_by_a_model_of_another(home, fitted, square):
    bare = sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=12)["P1"]
    del bare.tables["table"], bare.shapes["spots"]
    session = Session(bare)
    assert session.shapes() == {} and session.slide().frame.box_um.max() > 700
    name = session.add_model(home.models[fitted])
    request = Request(name, None, "fine", session.region(square, 40.0))
    assert done(session.estimate(request)).rows == len(request.region.xy_um)
    done(session.predict(request))
    slide = sqi.Slide.from_sdata(bare, shapes_key="fine", table_key=None)
    np.testing.assert_allclose(slide.xy_um, request.region.xy_um, atol=1e-6)
    assert bare.tables["imputed"].n_obs == len(slide) and list(session.shapes()) == ["fine"]
    live = session.look(request.region, name)
    np.testing.assert_allclose(live.mean, np.asarray(bare.tables["imputed"].layers["ridge"]), atol=5e-3)
    job = session.predict(request)
    assert job.wait(WAIT) and "'fine' is taken" in job.error


def test_sections_among_several_images_and_tables_are_predicted_from_the_one_that_is_open(home):
    sdata = sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=11)["P1"]
    sdata.images["other"] = sdata.images["he"]
    sdata.tables["cells"] = sdata.tables["table"].copy()
    del sdata.tables["table"]
    session = Session(sdata, "he", "cells")
    done(session.predict(Request("ridge", GENES, further=QUICK)))
    ours, other = (one.tables["imputed"].layers["ridge"] for one in (sdata, home.sdata))
    np.testing.assert_allclose(ours, other, atol=1e-5)
    other = sqi.datasets.toy(2, size_px=640, mpp=1.25, seed=11)["P2"]  # whose table has the usual name
    there = Request("ridge", GENES, reference=[other], layer_added="there", further={"config": SMALL})
    done(session.predict(there))
    assert "there" in sdata.tables["imputed"].layers


def test_a_region_is_looked_at_and_its_numbers_stand_beside_what_was_measured(home, fitted, square):
    said = home.look(home.region(square, 20.0), fitted)
    table = home.numbers(said, fitted, key="none")
    assert table.index.tolist() == GENES and set(table["interval"]) == {ERRORS} and home.saw(fitted)
    slide = home.slide().with_genes(GENES)
    inside = said.region.holds(slide.xy_um) & slide.measured
    assert table["spots"].tolist() == [inside.sum()] * 3 and inside.sum() > 2
    np.testing.assert_allclose(table["measured"], slide.expression[inside].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(table["predicted"], said.mean.mean(axis=0))
    assert (table["low"] < table["predicted"]).all() and (table["predicted"] < table["high"]).all()


def test_intervals_are_of_left_out_errors_where_a_prediction_out_of_fold_is_there(home, fitted, square):
    said = home.look(home.region((square - 400) / 2 + 400, 10.0), fitted)
    assert set(home.numbers(said, fitted)["interval"]) == {PATCHES}


def test_a_model_that_is_not_fitted_is_said(home, square):
    with pytest.raises(sqi.BadInput, match="'ridge' is not fitted"):
        home.add_model(sqi.get_model("ridge")())
    with pytest.raises(sqi.MissingKey, match="no fitted model 'ridge'; there are "):
        home.look(home.region(square, 50.0), "ridge")


def test_models_and_references_are_opened_from_disk(stored, home, fitted, tmp_path):
    home.models[fitted].save(tmp_path / "mine")
    assert home.open_model(tmp_path / "mine") == "mine" and home.models["mine"].genes == home.models[fitted].genes
    name = home.open_reference(stored.path)
    assert list(home.references) == [name]
    with pytest.raises(sqi.BadInput):
        home.open_reference(tmp_path / "nothing")
    with pytest.raises(sqi.BadInput, match="is the object itself"):
        Session(stored).open_reference(stored.path)


def test_an_estimate_names_rows_time_and_memory_and_writes_nothing(home, digest):
    before = digest(home.sdata)
    said = done(home.estimate(Request("ridge", GENES, device="cpu", further=QUICK)))
    assert said.rows == len(home.sdata.shapes["spots"]) and said.seconds > 0 and said.memory_mb > 0
    assert "rows" in str(said) and digest(home.sdata) == before


def test_a_gene_is_compared_with_shared_limits(home):
    views = home.views()
    shown = views.panels("NUC1")
    assert list(shown) == ["measured", "predicted", "measured − predicted", "standard deviation (a model per fold)"]
    assert shown["measured"].limits == shown["predicted"].limits
    table = home.sdata.tables["imputed"]
    column = np.asarray(table.layers["ridge"])[:, table.var_names.get_loc("NUC1")]
    np.testing.assert_allclose(shown["predicted"].values, column, rtol=1e-6)
    assert views.layer == "ridge" and views.shapes_key == "spots" and len(views.instances) == table.n_obs
    with pytest.raises(sqi.MissingKey, match="no gene 'HK1'"):
        views.panels("HK1")


def test_the_window_takes_the_coordinate_system_in_which_shapes_lie_on_the_image():
    from spatialdata.transformations import Scale, get_transformation, set_transformation

    sdata = sqi.datasets.toy(1, size_px=256, mpp=1.25, seed=11)["P1"]
    for name in ("he", "spots"):
        systems = {"um": get_transformation(sdata[name], "um")}
        if name == "he":  # whose first is another
            systems = {"downscaled": Scale([0.1, 0.1], axes=("x", "y"))} | systems
        set_transformation(sdata[name], systems, set_all=True)
    session = Session(sdata)
    assert session.frame().coordinate_system == session.slide().frame.coordinate_system == "um"
