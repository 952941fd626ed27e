"""Stores that are none, sections and models that do not fit: rows 45, 46, 51, 53 and 54 of the table of bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from spatialdata.models import ShapesModel, TableModel
from typer.testing import CliRunner

import sq_imputer as sqi
from sq_imputer import BadInput, MissingKey
from sq_imputer.section.slide import Slide

# Stores -------------------------------------------------------------------------------------------


def nothing(sdata, path) -> None:
    """No file at all."""


def empty_folder(sdata, path) -> None:
    path.mkdir()


def h5ad_file(sdata, path) -> None:
    sdata.tables["table"].write_h5ad(path)


def h5ad_in_a_folder(sdata, path) -> None:
    path.mkdir()
    sdata.tables["table"].write_h5ad(path / "table.h5ad")


def anndata_store(sdata, path) -> None:
    sdata.tables["table"].write_zarr(path)


@pytest.mark.parametrize(
    ("make", "holds"),
    [
        pytest.param(nothing, ["but nothing"], id="45-nothing"),
        pytest.param(empty_folder, ["but an empty folder"], id="45-empty-folder"),
        pytest.param(h5ad_file, ["but an HDF5 file", "anndata.read_h5ad"], id="45-h5ad"),
        pytest.param(h5ad_in_a_folder, ["but another folder"], id="45-h5ad-in-a-folder"),
        pytest.param(anndata_store, ["but an AnnData store", "anndata.read_zarr"], id="46-anndata-store"),
    ],
)
def test_what_is_no_store_is_refused(make, holds, sdata, refused, tmp_path) -> None:
    from sq_imputer.cli import app

    path = tmp_path / "given"
    make(sdata, path)
    message = refused(None, lambda: sqi.io.read_zarr(path), BadInput, "no SpatialData store", str(path), *holds)
    told = CliRunner().invoke(app, ["predict", str(path), "--model", "ridge"])
    assert (type(told.exception), str(told.exception)) == (BadInput, message)


# Models and sections ------------------------------------------------------------------------------


def test_51_weights_of_another_width_than_the_encoder_gives(predicted, refused, monkeypatch) -> None:
    from sq_imputer import encoders
    from sq_imputer.encoders._cards import TEXTURE

    class Colors(encoders.Encoder):
        def encode(self, crops):
            return crops.float().mean((2, 3)).repeat(1, self.card.dim // 3 + 1)[:, : self.card.dim]

    def register(dim: int) -> None:
        monkeypatch.setattr(encoders, "_registered", {})
        monkeypatch.setattr(encoders, "_with_canary", lambda encoder: encoder)  # which is no crop to be counted
        card = replace(TEXTURE, name="colors", dim=dim)
        encoders.register_encoder(card, lambda card, weights, revision: Colors(card, {"weights": "none"}))

    register(512)
    config = {"encoders": ("colors",), "context_um": (), "size_px": 8}
    fitted = sqi.tl.fit(predicted, "ridge", genes=3, config=config)
    register(1024)
    holds = ["512-d features", "'colors'", "1024"]
    refused(predicted, lambda: sqi.tl.predict(predicted, fitted, key_added="more"), BadInput, *holds)
    refused(predicted, lambda: sqi.tl.explain(predicted, fitted.genes[0], model=fitted), BadInput, *holds)


def test_53_a_section_is_not_predicted_by_a_model_that_has_seen_it(predicted, fitted, refused) -> None:
    holds = ["'P1'", "the very section to be predicted", "out of fold"]
    refused(predicted, lambda: sqi.tl.predict(predicted, fitted, key_added="more"), BadInput, *holds)
    refused(
        predicted,
        lambda: sqi.tl.predict(predicted, "ridge", reference={"another name": predicted}, key_added="more"),
        BadInput,
        "another name",
        *holds[1:],
    )


def test_53_one_section_or_one_of_them_twice_is_no_benchmark(toy, refused) -> None:
    slide = Slide.from_sdata(toy)
    twin = replace(slide, section="B", group="P2")
    refused(None, lambda: sqi.bench.leave_one_out([slide]), BadInput, "2 sections or more", "'P1'")
    refused(None, lambda: sqi.bench.leave_one_out([slide, twin]), BadInput, "'P1' and 'B'", "the same spots")


def test_54_a_table_of_two_elements_asks_which(sdata, refused) -> None:
    import anndata

    table = sdata.tables["table"]
    twin = table.copy()
    twin.obs_names, twin.obs["region"] = [f"b{k}" for k in range(len(twin))], "twin"
    table.obs["region"] = table.obs["region"].astype(str)
    both = anndata.concat([table, twin], merge="same")
    both.X[len(table) :] = both.X[len(table) :] * 2
    sdata.shapes["twin"] = ShapesModel.parse(sdata.shapes["spots"].copy())
    del sdata.tables["table"]
    known = {"region": ["spots", "twin"], "region_key": "region", "instance_key": "spot_id"}
    sdata.tables["table"] = TableModel.parse(both, **known)
    holds = ["table 'table' annotates 2 shapes elements", "'spots', 'twin'", "shapes_key="]
    refused(sdata, lambda: sqi.tl.fit(sdata, "ridge"), MissingKey, *holds)
    depths = [Slide.from_sdata(sdata, shapes_key=key).depth for key in ("spots", "twin")]
    assert np.array_equal(2 * depths[0], depths[1])


# Few spots, and keys that are not there -----------------------------------------------------------


def few(sdata, n: int):
    """The section with its first n spots alone."""
    table, shapes = sdata.tables["table"], sdata.shapes["spots"]
    table._inplace_subset_obs(np.arange(len(table)) < n)
    shapes.drop(shapes.index[n:], inplace=True)
    return sdata


@pytest.mark.parametrize(
    ("n", "folds"), [pytest.param(1, 5, id="x-one-spot"), pytest.param(4, 5, id="x-fewer-spots-than-folds")]
)
def test_too_few_spots_for_folds_are_counted(n, folds, sdata, refused) -> None:
    few(sdata, n)
    holds = [f"n_folds is {folds}", f"{n} measured spots", "smaller n_folds", "other sections"]
    refused(sdata, lambda: sqi.tl.predict(sdata, "ridge", n_folds=folds), BadInput, *holds)


def test_x_one_spot_is_too_few_to_fit_and_enough_to_predict(sdata, toy, refused) -> None:
    from spatialdata import deepcopy

    few(sdata, 1)
    refused(sdata, lambda: sqi.tl.fit(sdata, "ridge"), BadInput, "'P1'", "1 measured rows", "2 or more")
    other = deepcopy(toy)
    other.attrs.update(section="P9", patient="P9")
    shapes = other.shapes["spots"].iloc[:1].copy()
    other.shapes["one"] = ShapesModel.parse(shapes)
    sqi.tl.predict(other, "ridge", shapes_key="one", genes=4, config=sqi.get_model("ridge").Config.small())
    assert other.tables["imputed"].shape == (1, 4) and np.isfinite(other.tables["imputed"].X).all()


def test_x_a_mistyped_table_is_refused_and_a_missing_one_is_not(sdata, refused) -> None:
    holds = ["no table 'tabel'", "'table'", "table_key="]
    for verb in (sqi.pp.crops, sqi.pp.embed, sqi.pp.grid, sqi.pp.pixel_size):
        refused(sdata, lambda verb=verb: verb(sdata, table_key="tabel"), MissingKey, *holds)
    for verb in (sqi.tl.predict, sqi.tl.fit):
        refused(sdata, lambda verb=verb: verb(sdata, "ridge", table_key="tabel"), MissingKey, *holds)
    del sdata.tables["table"]
    assert len(sqi.pp.crops(sdata)) == 59


def test_x_a_table_that_only_the_references_have_is_read_there(sdata, toy, refused) -> None:
    from spatialdata import deepcopy

    other = deepcopy(toy)
    other.attrs.update(section="P9", patient="P9")
    other.tables["counts"] = other.tables["table"]
    del other.tables["table"], sdata.tables["table"]
    call = {"reference": other, "table_key": "counts", "genes": 4, "config": sqi.get_model("ridge").Config.small()}
    refused(sdata, lambda: sqi.tl.predict(sdata, "ridge", **{**call, "table_key": "cuonts"}), MissingKey, "'counts'")
    sdata.path = None
    sqi.tl.predict(sdata, "ridge", **call)
    assert not sdata.tables["imputed"].obs["measured"].any()


def test_x_a_mistyped_column_of_patients_is_refused(sdata, refused) -> None:
    holds = ["no 'donor'", "table 'table'", "'array_row'"]
    refused(sdata, lambda: sqi.tl.fit(sdata, "ridge", patient_key="donor"), MissingKey, *holds)
