from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from spatialdata.transformations import get_transformation

from sq_imputer import datasets
from sq_imputer.errors import BadInput

ROOT = Path(os.environ.get("SQ_IMPUTER_DATA") or Path(__file__).parents[3] / "shared" / "data")
real = pytest.mark.skipif(not ROOT.is_dir(), reason=f"no data at {ROOT}; set SQ_IMPUTER_DATA to read real sections")


def mpp_of(sdata) -> float:
    return get_transformation(sdata["he"], "um").to_affine_matrix(("x", "y"), ("x", "y"))[0, 0]


def row_in_file(path: Path, barcode: str) -> pd.Series:
    frame = pd.read_csv(path, sep="\t", index_col=0)
    return frame.loc[barcode]


def assert_on_tissue(sdata) -> None:
    """Spots are darker than glass, which is the brightest part of the image."""
    image = sdata["he"]["scale0"]["image"].values
    at = [image[:, int(point.y), int(point.x)] for point in sdata["spots"].geometry]
    assert np.mean(at) < np.quantile(image[:, ::8, ::8].mean(axis=0), 0.95) - 20


@real
def test_her2st_states_the_published_numbers():
    sdata = datasets.her2st(ROOT / "her2st", sections=["C3"])["C3"]
    table = sdata["table"]
    assert len(sdata["spots"]) == 182
    assert table.n_obs == 180  # two spots have no counts
    assert mpp_of(sdata) == pytest.approx(0.69, rel=0.02)
    assert set(table.obs["patient"]) == {"C"}
    assert sdata.attrs["section"] == "C3"
    assert "label" not in table.obs
    np.testing.assert_array_equal(
        table["10x12"].X.toarray().ravel(), row_in_file(ROOT / "her2st" / "C3_counts.tsv.gz", "10x12")
    )
    assert_on_tissue(sdata)


@real
def test_her2st_a1_has_the_labels_of_a_pathologist():
    sdata = datasets.her2st(ROOT / "her2st", sections=["A1"])["A1"]
    assert mpp_of(sdata) == pytest.approx(3.19, rel=0.02)
    assert len(sdata["spots"]) == 348
    labels = sdata["table"].obs["label"]
    assert labels.notna().all()
    assert labels["9x21"] == "invasive cancer"


@real
def test_mob_states_the_published_numbers():
    sections = datasets.mob(ROOT / "mob")
    assert {name: s["table"].shape for name, s in sections.items()} == {"MOB1": (379, 1000), "MOB2": (407, 1000)}
    for sdata in sections.values():
        assert mpp_of(sdata) == pytest.approx(4.72, rel=0.02)
        assert set(sdata["table"].obs["patient"]) == {"mouse1"}
    first = sections["MOB1"]["table"]
    np.testing.assert_array_equal(
        first["12x28"].X.toarray().ravel(), row_in_file(ROOT / "mob" / "MOB1_counts.tsv.gz", "12x28")
    )
    assert_on_tissue(sections["MOB1"])


@real
def test_mouse_brain_reads_the_spots_in_tissue():
    sdata = datasets.mouse_brain(ROOT / "mbrain_visium")
    assert sdata["table"].shape == (2702, 100)
    assert len(sdata["spots"]) == 2702
    assert mpp_of(sdata) == pytest.approx(4.27, rel=0.02)
    assert sdata["spots"]["radius"].iloc[0] * mpp_of(sdata) == pytest.approx(27.5)
    barcode = "AAACAACGAATAGTTC-1"  # outside the tissue
    assert barcode not in sdata["table"].obs_names
    np.testing.assert_array_equal(
        sdata["table"]["CACATAAGGCGACCGT-1"].X.toarray().ravel(),
        row_in_file(ROOT / "mbrain_visium" / "counts_top100genes_all4992spots.tsv.gz", "CACATAAGGCGACCGT-1"),
    )
    assert_on_tissue(sdata)


@real
def test_the_folder_is_found_through_the_environment(monkeypatch):
    monkeypatch.setenv("SQ_IMPUTER_DATA", str(ROOT))
    assert list(datasets.mob(sections=["MOB2"])) == ["MOB2"]


@pytest.mark.parametrize(
    ("read", "source"),
    [
        (datasets.her2st, "github.com/almaan/her2st"),
        (datasets.mob, "STUtility"),
        (datasets.mouse_brain, "10xgenomics.com"),
    ],
)
def test_without_a_folder_the_error_says_where_the_data_is_published(monkeypatch, read, source):
    monkeypatch.delenv("SQ_IMPUTER_DATA", raising=False)
    with pytest.raises(BadInput, match=f"SQ_IMPUTER_DATA.*{source}.*toy"):
        read()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match="no folder '.*nowhere'.*published at"):
        datasets.her2st(tmp_path / "nowhere")


def test_a_section_that_is_not_there_lists_the_others(tmp_path):
    (tmp_path / "Z9.jpg").touch()
    with pytest.raises(BadInput, match="no section 'C2' in .*; it has 'Z9'"):
        datasets.her2st(tmp_path)


def test_a_section_in_the_place_of_the_folder_is_told_where_it_belongs():
    with pytest.raises(BadInput, match=r"no folder 'C2'.* If 'C2' is a section, pass sections=\['C2'\]"):
        datasets.her2st("C2")
