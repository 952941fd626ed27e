from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from quick_zarr import *  # noqa: F403

from sq_imputer.errors import BadInput
from sq_imputer.io import read_st


def small_section(n: int = 6):
    """36 spots of the 200 µm lattice at 2 µm per pixel, 4 genes."""
    y, x = np.divmod(np.arange(n * n), n)
    barcodes = [f"{a}x{b}" for a, b in zip(x, y, strict=True)]
    spots = pd.DataFrame({"barcode": barcodes, "array_x": x, "array_y": y, "px": 50 + 100.0 * x, "py": 80 + 100.0 * y})
    rng = np.random.default_rng(0)
    counts = pd.DataFrame(rng.poisson(3, (n * n, 4)), index=barcodes, columns=["A", "B", "C", "D"])
    image = rng.integers(0, 255, (700, 640, 3), dtype=np.uint8)
    return image, counts, spots


def test_pixel_size_comes_from_the_lattice():
    sdata = read_st(*small_section(), technology="st")
    assert sdata["spots"]["radius"].iloc[0] == pytest.approx(25)  # 50 µm at 2 µm per pixel
    assert set(sdata.coordinate_systems) == {"global", "um"}
    assert sdata.attrs == {"section": "section"}
    assert "patient" not in sdata["table"].obs


def test_levels_are_those_that_spatialdata_makes():
    from spatialdata.models import Image2DModel

    levels = [level["image"] for level in read_st(*small_section(), technology="st")["he"].values()]
    made = Image2DModel.parse(levels[0].data, dims=("c", "y", "x"), scale_factors=[2] * (len(levels) - 1))
    assert len(levels) > 1
    for level, other in zip(levels, made.values(), strict=True):
        assert level.dtype == other["image"].dtype
        np.testing.assert_array_equal(level.data.compute(), other["image"].data.compute())


def test_rows_are_joined_by_barcode():
    image, counts, spots = small_section()
    table = read_st(image, counts.sample(frac=1, random_state=1), spots, technology="st")["table"]
    np.testing.assert_array_equal(table.X.toarray(), counts.loc[table.obs_names])
    assert table.obs_names.tolist() == spots["barcode"].tolist()
    assert table.obs["array_col"].tolist() == spots["array_x"].tolist()


def test_spots_without_counts_are_shapes_and_not_rows():
    image, counts, spots = small_section()
    sdata = read_st(image, counts.drop(index=["0x0", "3x2"]), spots, technology="st")
    assert len(sdata["spots"]) == 36
    assert sdata["table"].n_obs == 34
    measured = sdata["spots"].loc[sdata["table"].obs["spot_id"], "barcode"]
    assert measured.tolist() == sdata["table"].obs_names.tolist()
    assert "0x0" not in measured.tolist()


def test_files_and_frames_give_the_same(tmp_path):
    image, counts, spots = small_section()
    Image.fromarray(image).save(tmp_path / "S1.png")
    counts.to_csv(tmp_path / "counts.tsv.gz", sep="\t")
    spots.to_csv(tmp_path / "spots.csv", index=False)
    read = read_st(
        tmp_path / "S1.png", tmp_path / "counts.tsv.gz", str(tmp_path / "spots.csv"), technology="st", patient="7"
    )
    made = read_st(image, counts, spots, technology="st", patient="7", section="S1")
    np.testing.assert_array_equal(read["he"]["scale0"]["image"], made["he"]["scale0"]["image"])
    np.testing.assert_array_equal(read["he"]["scale0"]["image"], image.transpose(2, 0, 1))
    np.testing.assert_array_equal(read["table"].X.toarray(), made["table"].X.toarray())
    assert read.attrs == made.attrs == {"section": "S1", "patient": "7"}
    assert read["table"].var_names.tolist() == ["A", "B", "C", "D"]


def test_a_counts_header_without_a_corner_is_understood(tmp_path):
    image, counts, spots = small_section()
    text = counts.to_csv(sep="\t").removeprefix("\t")  # as R writes it
    (tmp_path / "counts.tsv").write_text(text)
    table = read_st(image, tmp_path / "counts.tsv", spots, technology="st")["table"]
    np.testing.assert_array_equal(table.X.toarray(), counts)


@pytest.mark.parametrize("form", ["index", "xy only", "barcode only", "other names"])
def test_spots_may_be_written_in_several_ways(form):
    image, counts, spots = small_section()
    other = {
        "index": spots.set_index("barcode"),
        "xy only": spots.drop(columns="barcode"),
        "barcode only": spots[["barcode", "px", "py"]],
        "other names": spots.rename(columns={"array_x": "x", "array_y": "y", "px": "pixel_x", "py": "pixel_y"}),
    }[form]
    table = read_st(image, counts, other, technology="st")["table"]
    np.testing.assert_array_equal(table.X.toarray(), counts)
    assert table.obs["array_row"].tolist() == spots["array_y"].tolist()


def test_given_sizes_are_taken():
    sdata = read_st(*small_section(), mpp=0.5, spot_diameter_um=55)
    assert sdata["spots"]["radius"].iloc[0] == pytest.approx(55)


def test_unknown_sizes_are_an_error():
    with pytest.raises(BadInput, match="pass technology= .*'visium', 'st', 'st2k'.* or both mpp="):
        read_st(*small_section(), mpp=0.5)


def test_missing_columns_are_named():
    image, counts, spots = small_section()
    with pytest.raises(BadInput, match="no column 'px' or 'pixel_x'; they have 'array_x', 'array_y', 'py'"):
        read_st(image, counts, spots.drop(columns="px"), technology="st")


def test_no_common_barcode_shows_both_sides():
    image, counts, spots = small_section()
    counts.index = [f"spot{i}" for i in range(36)]
    with pytest.raises(BadInput, match="counts have 'spot0', 'spot1', 'spot2', .* spots have '0x0', '1x0', '2x0'"):
        read_st(image, counts, spots, technology="st")


def test_duplicates_are_an_error(tmp_path):
    image, counts, spots = small_section()
    with pytest.raises(BadInput, match="duplicated barcodes: '0x0'"):
        read_st(image, counts.iloc[[0, 0, 1, 2]], spots, technology="st")
    with pytest.raises(BadInput, match="spots have duplicated barcodes: '0x0'"):
        read_st(image, counts, spots.iloc[[0, 0, 1, 2]], technology="st")
    counts.set_axis(["A", "B", "A", "D"], axis=1).to_csv(tmp_path / "twice.tsv", sep="\t")
    with pytest.raises(BadInput, match="duplicated genes: 'A'"):
        read_st(image, tmp_path / "twice.tsv", spots, technology="st")


@pytest.mark.parametrize("value", [0.5, -1, np.nan])
def test_values_that_are_not_counts_are_an_error(value):
    image, counts, spots = small_section()
    counts = counts.astype(float)
    counts.iloc[3, 1] = value
    with pytest.raises(BadInput, match="1 values of 144 that are not counts.*raw UMIs"):
        read_st(image, counts, spots, technology="st")


def test_text_in_the_counts_names_the_column():
    image, counts, spots = small_section()
    with pytest.raises(BadInput, match="not numbers in 'B'"):
        read_st(image, counts.assign(B="x"), spots, technology="st")


def test_spots_outside_the_image_are_an_error():
    image, counts, spots = small_section()
    with pytest.raises(BadInput, match=r"no spot lies on the image of 640 × 700 px; the first is at \(5050, 80\)"):
        read_st(image, counts, spots.assign(px=spots["px"] + 5000), technology="st")


def test_spots_without_a_position_are_an_error():
    image, counts, spots = small_section()
    with pytest.raises(BadInput, match="no pixel position: '1x0'"):
        read_st(image, counts, spots.assign(px=spots["px"].where(spots["barcode"] != "1x0")), technology="st")


def test_an_image_that_is_not_rgb_is_an_error():
    image, counts, spots = small_section()
    with pytest.raises(BadInput, match=r"shape \(700, 640\) and dtype uint8; expected \(y, x, 3\), uint8"):
        read_st(image[..., 0], counts, spots, technology="st")


def test_a_section_survives_zarr(tmp_path):
    from spatialdata import read_zarr

    sdata = read_st(*small_section(), technology="st", patient="P")
    sdata.write(tmp_path / "section.zarr")
    back = read_zarr(tmp_path / "section.zarr")
    assert back.attrs["section"] == "section"
    np.testing.assert_array_equal(back["table"].X.toarray(), sdata["table"].X.toarray())
    assert back["spots"]["barcode"].tolist() == sdata["spots"]["barcode"].tolist()


def test_tables_can_stay_in_the_store(whole_store, tmp_path, small_ridge):
    import dask.array as da
    import spatialdata as sd

    import sq_imputer as sqi

    shutil.copytree(whole_store, tmp_path / "toy.zarr")
    known = {"genes": 10, "n_folds": 2}
    results = []
    for sdata in (sd.read_zarr(tmp_path / "toy.zarr"), sqi.io.read_zarr(tmp_path / "toy.zarr", lazy_tables=True)):
        sqi.tl.predict(sdata, "ridge", overwrite=True, **known)
        results.append((sdata.tables["imputed"], sqi.tl.score(sdata)))
    assert isinstance(sdata.tables["table"].X, da.Array)  # of the last, which is the lazy one
    (eager, scores), (lazy, again) = results
    assert list(eager.var_names) == list(lazy.var_names)
    np.testing.assert_allclose(lazy.layers["ridge"], eager.layers["ridge"], atol=1e-6)
    np.testing.assert_array_equal(lazy.layers["measured"], eager.layers["measured"])
    np.testing.assert_allclose(again["pearson"].astype(float), scores["pearson"].astype(float), atol=1e-6)
    back = sd.read_zarr(tmp_path / "toy.zarr")  # the lazy object is backed: what it was given is in the store
    np.testing.assert_array_equal(back.tables["imputed"].layers["ridge"], lazy.layers["ridge"])
