from __future__ import annotations

import anndata
import numpy as np
import pytest
from spatialdata.models import get_table_keys
from spatialdata.transformations import get_transformation

from sq_imputer import datasets
from sq_imputer.errors import BadInput

SMALL = {"size_px": 1100, "mpp": 1.0}


@pytest.fixture(scope="module")
def sections():
    return datasets.toy(2, **SMALL)


def log_cp10k(table):
    counts = table.X.toarray()
    return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))


def level0(sdata):
    return sdata["he"]["scale0"]["image"].values


def with_rule(table, rule):
    return np.flatnonzero(table.var["rule"] == rule)


def test_a_section_follows_the_conventions(sections):
    sdata = sections["P2"]
    table = sdata["table"]
    assert sdata.attrs == {"section": "P2", "patient": "P2"}
    assert list(sdata["he"]["scale0"]["image"].coords["c"].values) == ["r", "g", "b"]
    assert level0(sdata).dtype == np.uint8
    assert get_table_keys(table) == ("spots", "region", "spot_id")
    assert set(table.obs["patient"]) == {"P2"}
    assert {"array_row", "array_col"} <= set(table.obs)
    for name in ("he", "spots", "nuclei"):
        assert set(get_transformation(sdata[name], get_all=True)) == {"global", "um"}
    scale = get_transformation(sdata["he"], "um").to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(scale, np.diag([1.0, 1.0, 1]))
    np.testing.assert_allclose(sdata["spots"]["radius"], 27.5)


def test_counts_are_integers_of_known_genes(sections):
    table = sections["P1"]["table"]
    assert table.n_vars == 60
    assert table.X.dtype == np.float32
    assert (table.X.data == np.rint(table.X.data)).all()
    assert table.var_names[:6].tolist() == ["NUC1", "GLD1", "STR1", "LYM1", "IND1", "HK1"]


def test_a_patient_does_not_depend_on_how_many_there_are(sections):
    alone = datasets.toy(1, **SMALL)["P1"]
    np.testing.assert_array_equal(level0(alone), level0(sections["P1"]))
    np.testing.assert_array_equal(alone["table"].X.toarray(), sections["P1"]["table"].X.toarray())


def test_patients_and_seeds_differ(sections):
    other = datasets.toy(1, **SMALL, seed=1)["P1"]
    assert (level0(other) != level0(sections["P1"])).mean() > 0.5
    assert (level0(sections["P2"]) != level0(sections["P1"])).mean() > 0.5


def test_sections_of_a_patient_share_it_and_not_the_tissue():
    sections = datasets.toy(1, sections_per_patient=2, size_px=500)
    assert list(sections) == ["P1_1", "P1_2"]
    assert {set(s["table"].obs["patient"]).pop() for s in sections.values()} == {"P1"}
    assert (level0(sections["P1_1"]) != level0(sections["P1_2"])).mean() > 0.5


@pytest.mark.parametrize("rule", ["nuclei", "glands", "stroma"])
def test_genes_follow_the_part_of_the_tissue_in_their_name(sections, rule):
    for sdata in sections.values():
        table = sdata["table"]
        values = log_cp10k(table)[:, with_rule(table, rule)].mean(axis=1)
        assert np.corrcoef(values, table.obs[rule])[0, 1] > 0.85


def test_independent_genes_follow_nothing_in_the_image(sections):
    table = sections["P1"]["table"]
    values = log_cp10k(table)[:, with_rule(table, "independent")]
    found = [
        np.corrcoef(values[:, g], table.obs[rule])[0, 1] for g in range(10) for rule in ("nuclei", "glands", "stroma")
    ]
    assert np.abs(np.mean(found)) < 0.1
    assert values.std(axis=0).min() > 0.3  # they do vary


def test_truth_is_what_the_rules_say(sections):
    table = sections["P1"]["table"]
    truth = table.obsm["truth"]
    np.testing.assert_allclose(np.exp(truth).sum(axis=1), 1, rtol=1e-4)
    parts = ["nuclei", "glands", "stroma", "lymphocytes"]
    rules = table.var[[f"coef_{part}" for part in parts]].to_numpy()
    # differences between two genes do not depend on the softmax: they are linear in the morphology
    gene, constant = with_rule(table, "glands")[0], with_rule(table, "constant")[0]
    difference = truth[:, gene] - truth[:, constant]
    slope = np.polyfit(table.obs["glands"], difference, 1)[0]
    assert slope == pytest.approx(rules[gene, 1] / 0.32, rel=1e-3)


def test_counts_scatter_around_the_truth(sections):
    table = sections["P1"]["table"]
    counts = table.X.toarray()
    expected = counts.sum(axis=1, keepdims=True) * np.exp(table.obsm["truth"])
    ratio = counts.sum(axis=0) / expected.sum(axis=0)
    np.testing.assert_allclose(ratio, 1, atol=0.15)
    assert counts.var() > 0


def test_depth_is_independent_of_cells_unless_asked():
    for asked, low, high in ((False, -0.25, 0.25), (True, 0.8, 1)):
        table = datasets.toy(1, size_px=1500, mpp=1.0, depth_from_cells=asked)["P1"]["table"]
        depth = np.log(table.X.toarray().sum(axis=1))
        assert low < np.corrcoef(depth, table.obs["nuclei"])[0, 1] < high


def test_spots_lie_on_tissue(sections):
    sdata = sections["P1"]
    image = level0(sdata).mean(axis=0)
    at = [image[int(point.y), int(point.x)] for point in sdata["spots"].geometry]
    corner = image[:20, :20].mean()
    assert corner > 225
    assert np.mean(at) < corner - 40


def test_labels_mark_the_blue_pixels(sections):
    image = level0(sections["P1"]).astype(float)
    nuclei = sections["P1"]["nuclei"].values > 0
    tissue = image.mean(axis=0) < 220
    assert image[0][nuclei].mean() < image[0][tissue & ~nuclei].mean() - 50  # hematoxylin takes red away


def test_spots_are_the_nearest_to_the_middle(sections):
    few = datasets.toy(1, **SMALL, spots=7)["P1"]
    assert len(few["spots"]) == few["table"].n_obs == 7
    middle = [point.distance(type(point)(550, 550)) for point in few["spots"].geometry]
    assert max(middle) < 160


def test_the_same_tissue_at_another_resolution():
    coarse, fine = (datasets.toy(1, size_px=size, mpp=mpp)["P1"] for size, mpp in ((400, 1.0), (800, 0.5)))
    image = level0(fine).reshape(3, 400, 2, 400, 2).mean(axis=(2, 4))
    assert np.corrcoef(image.ravel(), level0(coarse).ravel())[0, 1] > 0.9
    np.testing.assert_allclose(fine["table"].obs["glands"], coarse["table"].obs["glands"], atol=0.05)


def test_too_small_is_an_error():
    with pytest.raises(BadInput, match="n_genes is 3"):
        datasets.toy(1, n_genes=3)
    with pytest.raises(BadInput, match="100 µm; a piece of tissue"):
        datasets.toy(1, size_px=100, mpp=1.0)


# What color does not tell ------------------------------------------------------------------------------

BEYOND = ["density", "outline", "surroundings"]


@pytest.fixture(scope="module")
def beyond():
    """The tables of four sections of one patient, as one."""
    drawn = datasets.toy(1, sections_per_patient=4, size_px=1600, n_genes=12, beyond_color=True, seed=3)
    return anndata.concat([sdata["table"] for sdata in drawn.values()], merge="same", index_unique="-")


def left(values, table):
    """What is left once a line on the fractions is taken out."""
    known = np.column_stack([np.ones(len(table)), table.obs[["nuclei", "glands", "stroma", "lymphocytes"]]])
    return values - known @ np.linalg.lstsq(known, values, rcond=None)[0]


@pytest.mark.parametrize("rule", BEYOND)
def test_genes_beyond_color_follow_their_part_and_nothing_that_fractions_say(beyond, rule):
    truth = beyond.obsm["truth"] - beyond.obsm["truth"][:, with_rule(beyond, "constant")].mean(1, keepdims=True)
    own = truth[:, with_rule(beyond, rule)].mean(axis=1)
    part = left(beyond.obs[rule].to_numpy(dtype=float), beyond)
    assert np.corrcoef(own, part)[0, 1] > 0.9
    assert left(own, beyond).var() > 0.8 * own.var()
    counted = log_cp10k(beyond)[:, with_rule(beyond, rule)].mean(axis=1)
    assert np.corrcoef(counted, own)[0, 1] > 0.7


def test_without_it_there_are_no_such_genes(sections):
    table = sections["P1"]["table"]
    assert not set(BEYOND) & set(table.obs) and not {"coef_density"} & set(table.var)
    assert table.n_vars == 60 and not table.var_names.str.startswith(("DEN", "EDG", "NBR")).any()
