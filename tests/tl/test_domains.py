"""Domains that were planted are found, named and written; what they are compared with knows less."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import spatialdata
from fixtures_of_verbs import GENES, Spy
from shapely import Point
from sklearn.metrics import adjusted_rand_score
from spatialdata.transformations import get_transformation

import sq_imputer as sqi
from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.store.provenance import pythonic
from sq_imputer.tl import _clusters
from sq_imputer.tl._agreement import random_regions
from sq_imputer.tl._domains import palette

ALL_SPOTS = {"n_folds": 3, "buffer_um": 100.0}


def thirds(table) -> np.ndarray:
    """Three regions of unlike size: 1/2, 1/3 and 1/6 of the spots, from left to right."""
    rank = np.argsort(np.argsort(table.obsm["spatial"][:, 0], kind="stable"), kind="stable") / len(table)
    return np.digitize(rank, [1 / 2, 5 / 6])


def plant(table, layer: str = "spy", noise: float = 0.3, seed: int = 0) -> np.ndarray:
    """Give a table a prediction in which every region has other genes."""
    rng, region = np.random.default_rng(seed), thirds(table)
    means = np.random.default_rng(99).normal(size=(3, table.n_vars))
    table.layers[layer] = (means[region] + noise * rng.normal(size=table.shape)).astype(np.float32)
    table.X = table.layers[layer].copy()
    return region


@pytest.fixture(scope="module")
def _made(_pickled_toys) -> bytes:
    wide, section = (pickle.loads(_pickled_toys[name]) for name in ("wide", "P1"))
    sqi.tl.predict(wide, sqi.tl.fit(section, type("Model", (Spy,), {"fits": []}), genes=GENES))
    return pickle.dumps(wide)


@pytest.fixture
def made(_made):
    """A section of 237 spots; one fitted model predicted it."""
    return pickle.loads(_made)


@pytest.fixture
def planted(made):
    return made, plant(made.tables["imputed"])


@pytest.fixture
def seen(planted):
    """The same, and texture features that tell the regions without a doubt: to compute them takes seconds."""
    sdata, region = planted
    keep_texture(sdata.tables["imputed"], np.eye(3)[region])
    return planted


def keep_texture(table, features: np.ndarray) -> None:
    """As a prediction from texture keeps what it saw."""
    table.obsm["X_texture"] = features
    table.uns["sq_imputer"]["embeddings"] = {"X_texture": {"encoder": "texture"}}


def column(sdata, name: str = "domain"):
    return sdata.tables["imputed"].obs[name]


@pytest.mark.parametrize("method", ["leiden", "kmeans", "gmm"])
def test_planted_regions_are_found_and_named_by_size(planted, method):
    sdata, region = planted
    sqi.tl.domains(sdata, method=method, n_domains=3)
    assert adjusted_rand_score(region, column(sdata)) > 0.95
    assert list(column(sdata).cat.categories) == ["0", "1", "2"]
    sizes = column(sdata).value_counts().loc[["0", "1", "2"]]
    assert (np.diff(sizes) < 0).all()


def drawn(n_rows: int, n_columns: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, places and regions of three stripes of a square lattice."""
    xy = np.stack(np.divmod(np.arange(n_rows), int(np.ceil(n_rows**0.5))), axis=1) * 100.0
    region = np.digitize(xy[:, 0] / xy[:, 0].max(), [0.45, 0.8])
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, n_columns))[region] + 0.3 * rng.normal(size=(n_rows, n_columns)), xy, region


# scanpy searches another way from 8,192 rows on; scikit-learn's components are found by others between 500 rows and
# ten times the columns; the last is Visium HD's
@pytest.mark.parametrize(("n_rows", "n_columns"), [(480, 60), (520, 60), (620, 60), (9000, 10)])
def test_planted_regions_are_found_on_either_side_of_the_sizes_at_which_libraries_change_their_way(n_rows, n_columns):
    features, xy, region = drawn(n_rows, n_columns)
    found, _ = _clusters.cluster([[features]], [xy], _clusters.Settings(resolution=0.1))
    assert adjusted_rand_score(region, found[0]) > 0.95


@pytest.mark.parametrize("most_exact", [400, 399])
def test_planted_regions_are_found_with_exact_and_with_approximate_neighbors(monkeypatch, most_exact):
    from scipy.sparse import csr_array
    from sklearn.neighbors import KNeighborsTransformer

    asked = []

    class Search(KNeighborsTransformer):
        """The signature of pynndescent's, and the kind of matrix that it returns since 0.7; compiles nothing."""

        def __init__(self, n_neighbors=30, random_state=None, n_trees=None, n_iters=None):
            super().__init__(n_neighbors=n_neighbors, algorithm="brute")
            self.random_state, self.n_trees, self.n_iters = random_state, n_trees, n_iters

        def fit_transform(self, X, y=None):
            asked.append((self.n_neighbors, self.random_state, self.n_trees, self.n_iters))
            return csr_array(super().fit_transform(X))

    monkeypatch.setattr("pynndescent.PyNNDescentTransformer", Search)
    monkeypatch.setattr(_clusters, "MOST_EXACT", most_exact)
    features, xy, region = drawn(400)
    found, _ = _clusters.cluster([[features]], [xy], _clusters.Settings(n_domains=3, seed=4))
    assert adjusted_rand_score(region, found[0]) > 0.95
    assert asked == ([] if most_exact == 400 else [(15, 4, 6, 9)])


def test_shuffled_values_make_domains_that_agree_with_nothing(planted):
    sdata, region = planted
    table = sdata.tables["imputed"]
    table.layers["spy"] = np.random.default_rng(1).permutation(table.layers["spy"])
    sqi.tl.domains(sdata, layer="spy", n_domains=3, spatial_weight=0.0)
    assert abs(adjusted_rand_score(region, column(sdata))) < 0.05


@pytest.mark.parametrize("n_domains", [2, 3, 5, 9, 14])
def test_leiden_reaches_the_number_of_domains(planted, n_domains):
    sdata, _ = planted
    sqi.tl.domains(sdata, n_domains=n_domains)
    assert column(sdata).nunique() == n_domains
    assert column(sdata).value_counts(sort=False).is_monotonic_decreasing


def test_domains_that_no_resolution_separates_are_merged_into_the_nearest():
    spots = np.array([[0.0], [0.1], [5.0], [5.1], [5.2], [9.0]])
    merged = _clusters._merged(np.array([0, 0, 1, 1, 1, 2]), spots, 2)
    assert merged.tolist() == [0, 0, 1, 1, 1, 1]


def test_a_higher_resolution_makes_more_domains_and_the_one_found_makes_the_same(planted):
    sdata, _ = planted
    for resolution in (0.3, 3.0):
        sqi.tl.domains(sdata, resolution=resolution, key_added=f"at_{resolution:g}")
    assert column(sdata, "at_0.3").nunique() < column(sdata, "at_3").nunique()
    sqi.tl.domains(sdata, n_domains=5)
    params = sdata.tables["imputed"].uns["domain"]["params"]
    sqi.tl.domains(sdata, resolution=params["resolution"], key_added="again")
    assert (column(sdata, "again").astype(str) == column(sdata).astype(str)).all()


@pytest.mark.parametrize("method", ["leiden", "kmeans"])
def test_names_and_colors_do_not_depend_on_the_order_of_rows(planted, method):
    sdata, _ = planted
    other = spatialdata.deepcopy(sdata)
    table = other.tables["imputed"]
    other.tables["imputed"] = table[np.random.default_rng(3).permutation(table.n_obs)].copy()
    for one in (sdata, other):
        sqi.tl.domains(one, method=method, n_domains=5)
    assert (column(other).loc[column(sdata).index].astype(str) == column(sdata).astype(str)).all()
    colors = [list(one.tables["imputed"].uns["domain_colors"]) for one in (sdata, other)]
    assert colors[0] == colors[1] == palette(5)


def test_nothing_else_is_touched_and_the_store_holds_what_memory_does(planted, tmp_path, digest):
    sdata, _ = planted
    sdata.write(tmp_path / "section.zarr")
    stored = spatialdata.read_zarr(tmp_path / "section.zarr")
    memory = spatialdata.deepcopy(stored)
    memory.path = None
    without = ("imputed", "outlines")
    before = digest(stored, without), stored.tables["imputed"].X.copy()
    for one in (memory, stored):
        sqi.tl.domains(one, n_domains=3, shapes_added="outlines")
    again = spatialdata.read_zarr(tmp_path / "section.zarr")
    for one in (stored, again):
        assert digest(one, without) == before[0]
        assert (column(one).astype(str) == column(memory).astype(str)).all()
        found, expected = one.tables["imputed"].uns, memory.tables["imputed"].uns
        assert list(found["domain_colors"]) == list(expected["domain_colors"])
        params = [pythonic(uns["domain"]["params"]) for uns in (found, expected)]
        assert params[0] == params[1]
        np.testing.assert_array_equal(one.tables["imputed"].X, before[1])
        assert one.shapes["outlines"].geometry.geom_equals_exact(memory.shapes["outlines"].geometry, 1e-9).all()


def test_sections_are_clustered_together_whatever_their_level_and_scale(planted):
    sdata, region = planted
    other = spatialdata.deepcopy(sdata)
    table = other.tables["imputed"]
    again = plant(table, seed=5)
    table.layers["spy"] = (3 * table.layers["spy"] + 7).astype(np.float32)  # another stain, depth, batch
    sqi.tl.domains({"A": sdata, "B": other}, layer="spy", n_domains=3)
    both = np.concatenate([column(sdata).astype(str), column(other).astype(str)])
    assert adjusted_rand_score(np.concatenate([region, again]), both) > 0.95
    assert list(other.tables["imputed"].uns["domain"]["params"]["sections"]) == ["A", "B"]


def test_a_section_without_a_domain_keeps_the_colors_of_its_own(planted):
    sdata, _ = planted
    other = spatialdata.deepcopy(sdata)
    table = other.tables["imputed"]
    table.layers["spy"] = np.zeros_like(table.layers["spy"])
    table.layers["spy"][:, 0] = np.arange(len(table)) % 2
    sqi.tl.domains({"A": sdata, "B": other}, layer="spy", n_domains=6, spatial_weight=0.1)
    for one in (sdata, other):
        names, uns = list(column(one).cat.categories), one.tables["imputed"].uns
        assert set(names) == set(column(one)) and len(names) < 6
        assert list(uns["domain_colors"]) == [palette(6)[int(name)] for name in names]


def test_lone_spots_are_smoothed_into_their_neighbors(planted):
    sdata, region = planted
    table = sdata.tables["imputed"]
    alone = np.flatnonzero(region == 0)[[20, 60]]
    table.layers["spy"][alone] = table.layers["spy"][region == 2][:2]
    table.X = table.layers["spy"].copy()
    names = {}
    for smooth in (0, 1):
        sqi.tl.domains(sdata, n_domains=3, spatial_weight=0.0, smooth=smooth, key_added=f"smooth{smooth}")
        names[smooth] = column(sdata, f"smooth{smooth}").to_numpy()[alone].tolist()
    assert names == {0: ["2", "2"], 1: ["0", "0"]}


def test_weight_on_space_makes_domains_of_noise_contiguous(planted):
    sdata, _ = planted
    table = sdata.tables["imputed"]
    table.layers["spy"] = np.random.default_rng(2).normal(size=table.shape).astype(np.float32)
    lattice = _clusters.neighbors(table.obsm["spatial"]).tocoo()
    alike = []
    for weight in (0.0, 0.6):
        sqi.tl.domains(sdata, layer="spy", n_domains=4, spatial_weight=weight, overwrite=True)
        codes = column(sdata).cat.codes.to_numpy()
        alike.append((codes[lattice.row] == codes[lattice.col]).mean())
    assert alike[0] < 0.5 < 0.7 < alike[1]


def test_outlines_cover_their_spots_and_no_others(planted):
    sdata, _ = planted
    sdata.tables["imputed"] = sdata.tables["imputed"][5:].copy()  # spots of no domain
    sqi.tl.domains(sdata, n_domains=4, shapes_added="outlines")
    table, spots, outlines = sdata.tables["imputed"], sdata.shapes["spots"], sdata.shapes["outlines"]
    domain = table.obs.set_index("instance_id")["domain"].reindex(spots.index)
    assert list(outlines.index) == list(table.obs["domain"].cat.categories)
    assert outlines["n_spots"].to_dict() == domain.value_counts().to_dict()
    for (_, spot), name in zip(spots.iterrows(), domain, strict=True):
        disc = Point(spot.geometry).buffer(spot["radius"])
        inside = [other for other, outline in outlines.geometry.items() if outline.intersects(disc)]
        assert inside == ([] if pd.isna(name) else [name])
        assert pd.isna(name) or outlines.geometry[name].covers(disc)
    assert set(get_transformation(outlines, get_all=True)) == set(get_transformation(spots, get_all=True))


def test_outlines_do_not_overlap_and_end_at_the_border_of_the_lattice():
    xy = np.array([(x, y) for x in range(6) for y in range(4) if (x, y) != (2, 2)], dtype=float) * 100
    found = _clusters.outlines(xy, (xy[:, 0] > 250).astype(int))
    assert found[0].intersection(found[1]).area < 1e-3
    assert found[0].distance(Point(200, 200)) > 20
    assert found[1].bounds[2] <= 500 + 75 + 1e-6


def test_domains_go_straight_into_scanpy_and_squidpy(planted):
    import squidpy as sq

    sdata, _ = planted
    sqi.tl.domains(sdata, n_domains=3)
    table = sdata.tables["imputed"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.tl.rank_genes_groups(table, "domain", method="t-test")
        sq.gr.spatial_neighbors(table, coord_type="generic", n_neighs=6)
        sq.gr.nhood_enrichment(table, "domain", n_perms=20, show_progress_bar=False, seed=0)
    assert table.uns["rank_genes_groups"]["names"].dtype.names == ("0", "1", "2")
    assert (np.diag(table.uns["domain_nhood_enrichment"]["zscore"]) > 3).all()


def test_spots_that_were_not_measured_have_no_domain_of_the_measured(partly, spy, genes):
    sdata, dropped = partly
    sqi.tl.predict(sdata, "spy", genes=genes, **ALL_SPOTS)
    sqi.tl.domains(sdata, use="measured", n_domains=3)
    without = sdata.tables["imputed"].obs["instance_id"].isin(dropped)
    assert (column(sdata).isna() == without).all() and without.any()
    assert set(column(sdata).cat.categories) == {"0", "1", "2"}


@pytest.mark.parametrize("use", ["embedding", "both"])
def test_other_features_make_other_domains(planted, use):
    sdata, region = planted
    table = sdata.tables["imputed"]
    table.obsm["spy"] = np.eye(4)[region % 2].astype(np.float32) + np.random.default_rng(0).normal(0, 0.01, (237, 4))
    sqi.tl.domains(sdata, use=use, n_domains=3)
    assert table.uns["domain"]["params"]["use"] == use
    found = adjusted_rand_score(region, column(sdata))
    assert found > 0.95 if use == "both" else found < 0.9


def test_texture_features_that_no_model_saw_are_computed_and_not_kept(patients, spy, genes):
    sdata = patients["P1"]
    sqi.tl.predict(sdata, "spy", reference=patients["P2"], genes=genes)
    region, table = plant(sdata.tables["imputed"]), sdata.tables["imputed"]
    sqi.tl.domains(sdata, use="texture", n_domains=3)
    assert table.uns["domain"]["params"]["use"] == "texture"
    assert adjusted_rand_score(region, column(sdata)) < 0.9
    assert not [name for name in table.obsm if name.startswith("X_")]


def test_texture_features_that_the_model_saw_are_used_again(seen):
    sdata, region = seen
    sqi.tl.domains(sdata, use="texture", n_domains=3)
    assert adjusted_rand_score(region, column(sdata)) == 1


def test_the_embeddings_of_several_models_are_not_mixed(wide, section, spy, genes):
    sqi.tl.predict(wide, "spy", genes=genes, **ALL_SPOTS)
    with pytest.raises(BadInput, match="the embedding of 'spy' was made by 3 models, one per fold"):
        sqi.tl.domains(wide, use="embedding")
    sqi.tl.predict(wide, sqi.tl.fit(section, "spy", genes=genes), overwrite=True)
    other = spatialdata.deepcopy(wide)
    other.tables["imputed"].uns["sq_imputer"]["spy"]["weights_sha256"] = "another"
    with pytest.raises(BadInput, match="made by different models of the name 'spy'"):
        sqi.tl.domains({"A": wide, "B": other}, use="both")


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (BadInput, {"use": "genes"}, "use is 'genes'; expected one of 'prediction', 'embedding'"),
        (BadInput, {"method": "louvain"}, "method is 'louvain'; expected one of 'leiden', 'kmeans', 'gmm'"),
        (BadInput, {"method": "kmeans"}, "method 'kmeans' needs n_domains="),
        (BadInput, {"n_domains": 3, "resolution": 1.0}, "n_domains and resolution are both given"),
        (BadInput, {"n_domains": 1}, "n_domains is 1; expected a whole number, 2 or more"),
        (BadInput, {"n_domains": 200}, r"n_domains is 200 for 237 spots; expected 118 or less"),
        (BadInput, {"resolution": 0}, "resolution is 0; expected a positive number"),
        (BadInput, {"spatial_weight": 1.5}, "spatial_weight is 1.5; expected a number from 0 to 1"),
        (BadInput, {"smooth": -1}, "smooth is -1; expected a whole number, 0 or more"),
        (BadInput, {"n_pcs": 0}, "n_pcs is 0; expected a whole number, 1 or more"),
        (BadInput, {"key_added": "a/b"}, "key_added is 'a/b'; expected letters"),
        (BadInput, {"key_added": "section"}, "'section' of tables\\['imputed'\\] was not written by tl.domains"),
        (BadInput, {"key_added": "sq_imputer"}, "'sq_imputer' of tables\\['imputed'\\] was not written by tl.domains"),
        (BadInput, {"key_added": "Section"}, "'Section' and the column 'section' differ in case only"),
        (BadInput, {"shapes_added": "spots", "overwrite": True}, "shapes 'spots' are not outlines of domains"),
        (BadInput, {"shapes_added": "spots"}, "'spots' is taken"),
        (MissingKey, {"layer": "stem"}, "no prediction 'stem' in tables\\['imputed'\\]; it has 'spy'"),
        (MissingKey, {"key": "table"}, "no prediction in tables\\['table'\\]; sdata has"),
    ],
)
def test_errors_come_before_anything_is_written(planted, digest, error, options, message):
    sdata, _ = planted
    before = digest(sdata)
    with pytest.raises(error, match=message):
        sqi.tl.domains(sdata, **options)
    assert digest(sdata) == before


def test_more_errors(planted, monkeypatch):
    sdata, _ = planted
    other = spatialdata.deepcopy(sdata)
    for wrong in ([], ["P1"], {"A": 3}, 3):
        with pytest.raises(BadInput, match="expected a SpatialData object, or a list or dict"):
            sqi.tl.domains(wrong)
    with pytest.raises(BadInput, match="two sections of the list have the same name"):
        sqi.tl.domains([sdata, other])
    record = other.tables["imputed"].uns["sq_imputer"]["spy"]
    other.tables["imputed"].uns["sq_imputer"]["spy"] = {**record, "unit": "counts"}
    with pytest.raises(BadInput, match="'A' is in 'log1p_cp10k', 'B' in 'counts'"):
        sqi.tl.domains({"A": sdata, "B": other})
    other.tables["imputed"].uns["sq_imputer"]["spy"] = record
    other.tables["imputed"].var_names = [f"other{i}" for i in range(other.tables["imputed"].n_vars)]
    with pytest.raises(BadInput, match="no gene or feature in common"):
        sqi.tl.domains({"A": sdata, "B": other})
    del other.tables["imputed"].obsm["spy"]
    with pytest.raises(MissingKey, match="model 'spy' has no embedding"):
        sqi.tl.domains(other, use="embedding")
    other.tables["imputed"].layers["measured"][4:] = np.nan
    with pytest.raises(BadInput, match="section 'P1' has 4 spots with measured values; 10 or more"):
        sqi.tl.domains(other, use="measured")
    monkeypatch.setattr("sq_imputer.tl._domains.find_spec", lambda name: None)
    with pytest.raises(BadInput, match="needs igraph, which is not installed: pip install igraph"):
        sqi.tl.domains(sdata)


def test_domains_are_replaced_only_where_that_is_asked_for(planted):
    sdata, _ = planted
    sqi.tl.domains(sdata, n_domains=3, shapes_added="outlines")
    with pytest.raises(BadInput, match="has 'domain' already. Pass overwrite=True"):
        sqi.tl.domains(sdata, n_domains=5)
    sqi.tl.domains(sdata, n_domains=5, shapes_added="outlines", overwrite=True)
    assert column(sdata).nunique() == len(sdata.shapes["outlines"]) == 5


def test_the_last_prediction_is_the_default(planted):
    sdata, region = planted
    table = sdata.tables["imputed"]
    table.uns["sq_imputer"]["other"] = dict(table.uns["sq_imputer"]["spy"])
    table.layers["other"] = np.random.default_rng(0).normal(size=table.shape).astype(np.float32)
    sqi.tl.domains(sdata, n_domains=3)
    assert table.uns["domain"]["params"]["layer"] == "spy"
    table.X = np.zeros(table.shape, np.float32)
    with pytest.raises(MissingKey, match="does not say which prediction is its last; it has 'spy', 'other'"):
        sqi.tl.domains(sdata, overwrite=True)


# Agreement ----------------------------------------------------------------------------------------


def of(scores, predictor: str) -> pd.Series:
    return scores.set_index("predictor").loc[predictor]


def test_agreement_with_the_planted_regions_stands_beside_controls(seen, digest):
    sdata, region = seen
    sqi.tl.domains(sdata, n_domains=3)
    labels = pd.Series(region.astype(str), index=sdata.tables["imputed"].obs_names)
    labels.iloc[:7] = None
    before = digest(sdata)
    found = sqi.tl.agreement(sdata, labels, n_random=40)
    assert digest(sdata) == before
    assert list(found["predictor"]) == ["domain", "texture alone", "measured", "random regions", "shuffled"]
    assert (found["n_domains"] == 3).all() and (found["n_spots"] == 230).all()
    assert of(found, "domain")["ari"] > 0.95 and of(found, "domain")["nmi"] > 0.9
    assert of(found, "texture alone")["ari"] == 1
    assert abs(of(found, "shuffled")["ari"]) < 0.02
    assert 0.05 < of(found, "random regions")["ari"] < of(found, "random regions")["ari_high"] < 0.95
    assert found["ari_folds"].isna().all()
    pd.testing.assert_frame_equal(found, sqi.tl.agreement(sdata, labels, n_random=40))


def test_agreement_with_a_column_of_the_measured_table_and_with_measured_domains(seen):
    sdata, region = seen
    table = sdata.tables["imputed"]
    sdata.tables["table"].obs["label"] = pd.Categorical(region.astype(str))[::-1]
    sqi.tl.domains(sdata, n_domains=3)
    at = sdata.tables["table"].obs["label"].reindex(table.obs_names)
    expected = adjusted_rand_score(at.astype(str), column(sdata).astype(str))
    assert of(sqi.tl.agreement(sdata, "label", n_random=5), "domain")["ari"] == pytest.approx(expected)
    table.layers["measured"] = table.layers["spy"].copy()
    found = sqi.tl.agreement(sdata, n_random=5)
    assert of(found, "domain")["ari"] == 1
    assert "measured" not in set(found["predictor"])


def test_agreement_of_several_sections_is_told_of_each(joined, genes):
    """Barcodes repeat over sections, and a column of the measured table is found by region and instance."""
    config = {"size_px": 32, "context_um": ()}
    sqi.tl.predict(joined, "ridge", sections="region", leave_out="section", genes=genes, config=config)
    sqi.tl.domains(joined, n_domains=3, method="kmeans")
    measured, table = joined.tables["table"], joined.tables["imputed"]
    found = sqi.tl.agreement(joined, n_random=5)
    assert list(found["section"].unique()) == list(table.obs["section"].unique())
    assert (found.groupby("section").size() == 4).all()
    place = {(region, spot): k for k, (region, spot) in enumerate(measured.obs[["region", "spot_id"]].to_numpy())}
    at = [place[region, spot] for region, spot in table.obs[["region", "instance_id"]].to_numpy()]
    truth = np.empty(measured.n_obs, dtype=object)
    truth[at] = table.obs["domain"].astype(str).to_numpy()
    measured.obs["truth"] = truth
    measured.obs_names = [f"bc{k % 10}" for k in range(measured.n_obs)]
    again = sqi.tl.agreement(joined, "truth", n_random=5, sections=found["section"].unique()[1:])
    assert (again.loc[again["predictor"] == "domain", "ari"] == 1).all() and again["section"].nunique() == 2


def test_domains_that_are_the_folds_of_the_prediction_are_told(wide, spy, genes):
    sqi.tl.predict(wide, "spy", genes=genes, **ALL_SPOTS)
    table = wide.tables["imputed"]
    fold = table.obs["spy_fold"].to_numpy()
    table.layers["spy"] = np.eye(table.n_vars, dtype=np.float32)[fold]
    keep_texture(table, table.obsm["spatial"])
    sqi.tl.domains(wide, layer="spy", n_domains=3)
    found = sqi.tl.agreement(wide, n_random=20)
    assert of(found, "domain")["ari_folds"] == 1
    assert abs(of(found, "shuffled")["ari_folds"]) < 0.05
    assert of(found, "random regions")["ari_folds"] < 0.9


def test_random_regions_have_the_sizes_asked_for_and_are_compact():
    xy = np.stack(np.divmod(np.arange(400), 20), axis=1) * 100.0
    sizes = np.array([200, 120, 50, 30])
    labels = random_regions(xy, sizes, np.random.default_rng(0))
    assert sorted(np.bincount(labels)) == sorted(sizes)
    lattice = _clusters.neighbors(xy).tocoo()
    assert (labels[lattice.row] == labels[lattice.col]).mean() > 0.8


def test_what_cannot_be_compared_is_an_error(seen):
    sdata, _ = seen
    with pytest.raises(MissingKey, match="no 'domain' in tables\\['imputed'\\].obs"):
        sqi.tl.agreement(sdata)
    sqi.tl.domains(sdata, n_domains=3)
    for labels, error, message in (
        ("tumor", MissingKey, "no 'tumor' in obs, which has"),
        (np.zeros(237), BadInput, "labels is a ndarray; expected the name of a column or a pandas Series"),
        ("patient", BadInput, "the 237 spots of section 'P1' with labels and domains have one label"),
    ):
        with pytest.raises(error, match=message):
            sqi.tl.agreement(sdata, labels)
    sdata.tables["imputed"].obs["one"] = "a"
    with pytest.raises(BadInput, match="'one' has 1 domain; two or more"):
        sqi.tl.agreement(sdata, domain="one")


def test_eight_colors_are_for_colorblind_readers_and_more_are_all_different():
    assert palette(3) == ["#0072B2", "#E69F00", "#009E73"]
    for n in (8, 9, 25, 60):
        assert len(set(palette(n))) == n
    assert len(palette(200)) == 200


@pytest.mark.parametrize("method", ["leiden", "kmeans", "gmm"])
def test_the_order_of_the_sections_decides_nothing(method):
    """Of weak domains, where each run of Leiden in another order would find others."""
    from itertools import permutations

    rng = np.random.default_rng(0)
    sections = []
    for n_rows in (120, 144, 144):
        xy = np.stack(np.divmod(np.arange(n_rows), 12), axis=1) * 100.0
        sections.append(([rng.normal(size=(n_rows, 6)) + 0.4 * np.sin(xy[:, :1] / 200)], xy))
    first = None
    for order in permutations(range(3)):
        features, places = zip(*[sections[k] for k in order], strict=True)
        found, _ = _clusters.cluster(features, places, _clusters.Settings(method, n_domains=4))
        labels = [found[order.index(k)] for k in range(3)]
        first = labels if first is None else first
        for one, other in zip(first, labels, strict=True):
            np.testing.assert_array_equal(one, other)


def test_components_of_many_rows_are_those_of_few_at_a_time(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    sections = [rng.normal(size=(n, 6)) @ rng.normal(size=(6, 6)) * [1, 1, 1, 0, 2, 5] + 3 for n in (70, 50)]
    orders = [rng.permutation(70), rng.permutation(50)]
    features, settings = [[one] for one in sections], _clusters.Settings(n_pcs=3)
    whole = _clusters._joint(features, orders, settings)
    monkeypatch.setattr(_clusters, "MOST_EXACT", 20)
    np.testing.assert_allclose(_clusters._joint(features, orders, settings), whole, atol=1e-8)


def test_leiden_says_what_to_take_of_many_rows() -> None:
    many = _clusters.MOST_BY_LEIDEN + 1
    with pytest.warns(UserWarning, match="on 150,001 rows.*n_domains= tries up to 25.*method='kmeans'"):
        _clusters.Settings(n_domains=8).warn_of_time(many)
    _clusters.Settings().warn_of_time(many - 1)
    _clusters.Settings("kmeans", n_domains=8).warn_of_time(many)
