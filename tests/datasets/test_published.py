"""Files of authors, named as they name them: drawn small, and those at hand read as the copies of them are."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.sparse import csc_matrix

from sq_imputer import datasets
from sq_imputer.errors import BadInput

SIDE = 6
X, Y = (axis.ravel() for axis in np.meshgrid(np.arange(1, SIDE + 1), np.arange(1, SIDE + 1)))
NAMES = [f"{x}x{y}" for x, y in zip(X, Y, strict=True)]
HEIGHT = 20.0 * 5**0.5  # pixels between rows of a lattice of ST 2k whose columns are 40 apart
GENES = ["ENSMUSG1.1", "ENSMUSG2.3", "ENSMUSG3.2"]


def draw(path, side: int = 320) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)


def counts() -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(1).poisson(3, (SIDE**2, len(GENES))), index=NAMES, columns=GENES)


def spots(height: float = 40.0) -> pd.DataFrame:
    """As the spot detector writes them, rows as high as that; one spot is not under tissue."""
    where = {"x": X, "y": Y, "new_x": X + 0.1, "new_y": Y, "pixel_x": X * 40.0, "pixel_y": Y * height}
    return pd.DataFrame({**where, "selected": [0] + [1] * (SIDE**2 - 1)})


@pytest.fixture
def her2st(tmp_path):
    data = tmp_path / "her2st" / "data"
    draw(data / "ST-imgs" / "A" / "A1" / "9769_C1_HE_small.jpg")
    for folder in ("ST-cnts", "ST-spotfiles", "ST-pat/lbl"):
        (data / folder).mkdir(parents=True)
    counts().to_csv(data / "ST-cnts" / "A1.tsv.gz", sep="\t")
    spots().to_csv(data / "ST-spotfiles" / "A1_selection.tsv", sep="\t", index=False)
    labels = pd.DataFrame({"Row.names": "-", "x": X[5:] + 0.02, "y": Y[5:] - 0.006, "label": "cancer in situ"})
    labels.to_csv(data / "ST-pat" / "lbl" / "A1_labeled_coordinates.tsv", sep="\t", index=False)
    return tmp_path / "her2st"


@pytest.mark.parametrize("where", ["", "data"])
def test_her2st_is_read_as_its_repository_lies(her2st, where):
    sdata = datasets.her2st(her2st / where, ["A1"])["A1"]
    table = sdata["table"]
    assert list(table.obs_names) == NAMES[1:] and list(table.var_names) == GENES
    np.testing.assert_array_equal(table.X.toarray(), counts().iloc[1:])
    assert sdata["spots"].geometry[0].coords[0] == (80.0, 40.0)
    assert sdata.attrs == {"section": "A1", "patient": "A"}
    assert table.obs["label"].isna().to_numpy().tolist() == [True] * 4 + [False] * (SIDE**2 - 5)


def test_what_her2st_lacks_is_named(her2st):
    with pytest.raises(BadInput, match=r"no image of section 'C2' in .*ST-imgs'; it has A1\. Pass sections=\."):
        datasets.her2st(her2st, ["C2"])
    (her2st / "data" / "ST-spotfiles" / "A1_selection.tsv").unlink()
    with pytest.raises(BadInput, match=r"no '.*A1_selection.tsv', which says where the spots are"):
        datasets.her2st(her2st, ["A1"])


@pytest.mark.parametrize("where", ["", "inst/extdata/counts"])
def test_mob_is_read_as_its_repository_lies(tmp_path, where):
    folder = tmp_path / "inst" / "extdata" / "counts"
    draw(folder / "MOB1.jpg")
    counts().to_csv(folder / "MOB1.tsv", sep="\t")
    spots(HEIGHT).to_csv(folder / "alignment_table_MOB1.tsv", sep="\t", index=False)
    named = pd.DataFrame({"gene_id": GENES[:2], "gene_type": "protein_coding", "gene_name": ["Penk", "Doc2g"]})
    named.to_csv(folder.parent / "mouse_genes.tsv.gz", sep="\t", index=False)
    sdata = datasets.mob(tmp_path / where, ["MOB1"])["MOB1"]
    assert list(sdata["table"].var_names) == ["Penk", "Doc2g", "ENSMUSG3.2"]
    assert list(sdata["table"].obs_names) == NAMES[1:]
    with pytest.raises(BadInput, match="no section 'MOB2' in .*; it has MOB1"):
        datasets.mob(tmp_path / where)


@pytest.mark.parametrize("header", [False, True])
def test_the_mouse_brain_is_read_as_10x_publishes_it(tmp_path, header):
    draw(tmp_path / "spatial" / "tissue_hires_image.png")
    (tmp_path / "spatial" / "scalefactors_json.json").write_text(json.dumps({"tissue_hires_scalef": 0.1}))
    barcodes = [f"SPOT{k}-1" for k in range(SIDE**2)]
    row, col = Y, 2 * X + Y % 2  # rows of a triangular lattice
    where = {"in_tissue": [0] + [1] * (SIDE**2 - 1), "array_row": row, "array_col": col}
    where |= {"pxl_row_in_fullres": row * 40 * 3**0.5 / 2 * 10, "pxl_col_in_fullres": col * 20 * 10.0}
    name = "tissue_positions.csv" if header else "tissue_positions_list.csv"
    pd.DataFrame(where, index=pd.Index(barcodes, name="barcode")).to_csv(tmp_path / "spatial" / name, header=header)
    with h5py.File(tmp_path / "V1_Adult_Mouse_Brain_filtered_feature_bc_matrix.h5", "w") as file:
        matrix = csc_matrix(counts().to_numpy()[1:].T)
        parts = {"data": matrix.data.astype(np.int32), "indices": matrix.indices, "indptr": matrix.indptr}
        for key, value in {**parts, "shape": np.array(matrix.shape, np.int32)}.items():
            file[f"matrix/{key}"] = value
        file["matrix/barcodes"] = np.array(barcodes[1:], dtype="S")
        told = {"id": GENES, "name": ["Penk", "Doc2g", "Penk"], "feature_type": ["Gene Expression"] * 3}
        for key, value in {**told, "genome": ["mm10"] * 3}.items():
            file[f"matrix/features/{key}"] = np.array(value, dtype="S")
    sdata = datasets.mouse_brain(tmp_path)
    table = sdata["table"]
    assert list(table.obs_names) == barcodes[1:] and list(table.var_names) == ["Penk", "Doc2g", "Penk-1"]
    assert list(table.var["gene_ids"]) == GENES
    np.testing.assert_array_equal(table.X.toarray(), counts().to_numpy()[1:])
    assert sdata["spots"].geometry[0].coords[0] == pytest.approx((20.0 * col[1], 40 * 3**0.5 / 2))
    assert sdata["spots"]["radius"].iloc[0] == pytest.approx(27.5 * 40 / 100)  # 40 px are the 100 µm between spots
    (tmp_path / "spatial" / "tissue_hires_image.png").unlink()
    with pytest.raises(BadInput, match="has no tissue_hires_image.png; unpack the spatial archive there"):
        datasets.mouse_brain(tmp_path)
