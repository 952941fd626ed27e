"""Whole pictures against stored ones: what no assertion on artists sees, such as a heading that is lost.

The tolerance is the root mean square over the colors (0 to 255) of all pixels: another color map makes 10, a missing
part 15 or more. The stored pictures were drawn by matplotlib 3.11; before it, another FreeType gave text another size,
which alone makes 30. `pytest tests/pl/test_images.py --mpl-generate-path=tests/pl/baseline` draws them anew: look at
them before they are kept.
"""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest

from sq_imputer import pl

matplotlib.use("agg")
import matplotlib.pyplot as plt

pytestmark = pytest.mark.skipif(
    tuple(int(part) for part in matplotlib.__version__.split(".")[:2]) < (3, 11),
    reason="text of matplotlib before 3.11 has another size than in the stored pictures",
)
like_stored = pytest.mark.mpl_image_compare(
    baseline_dir="baseline", style="default", backend="agg", tolerance=5, savefig_kwargs={"dpi": 50}, deterministic=True
)


@pytest.fixture(scope="module")
def tissue():
    """A toy section and a prediction that is known without a model: the truth, and half of it at the right."""
    import sq_imputer as sqi

    sdata = sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=11)["P1"]
    config = {"extent_um": 112.0, "size_px": 32, "context_um": ()}
    sqi.tl.predict(sdata, "ridge", genes=60, config=config)
    table = sdata.tables["imputed"]
    truth = sdata.tables["table"][:, table.var_names].obsm["truth"]
    columns = sdata.tables["table"].var_names.get_indexer(table.var_names)
    rng = np.random.default_rng(0)
    table.layers["ridge"] = truth[:, columns].astype(np.float32) + 6
    table.layers["ridge_std"] = rng.uniform(0.2, 0.6, table.shape).astype(np.float32)
    table.layers["measured"] = table.layers["ridge"] + rng.normal(0, 0.3, table.shape).astype(np.float32)
    table.layers["measured"][:5] = np.nan
    table.X = table.layers["ridge"].copy()
    return sdata


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    sections = {"C2": 0.06, "C3": -0.04, "C4": 0.02, "C5": -0.03}
    models = {"mean": np.nan, "depth only": 0.2, "ridge": 0.4, "nsl": 0.25, "mlp": 0.43, "stem": 0.5}
    rows = [
        {"predictor": name, "case": case, "section": case, "gene": f"g{rank}", "rank": rank, "shares_patient": True}
        | {"pearson": score + sections[case] - 0.004 * rank + rng.normal(0, 0.05), "ceiling": 0.9 - 0.01 * rank}
        for name, score in models.items()
        for case in sections
        for rank in range(30)
    ]
    return pd.DataFrame(rows)


def axes(n: int, width: float, height: float, **room):
    """Axes in fixed places: a layout that makes room for text moves everything where text has another size."""
    fig, drawn = plt.subplots(1, n, figsize=(width, height))
    fig.subplots_adjust(**room)
    return drawn


@like_stored
def test_compare(tissue):
    drawn = axes(4, 9.5, 2.3, left=0.04, right=0.93, top=0.88, bottom=0.12, wspace=0.55)
    return pl.compare(tissue, "NUC1", ax=drawn)[0, 0].figure


@like_stored
def test_skill(scores):
    drawn = axes(1, 6.5, 3, left=0.1, right=0.55, bottom=0.16)
    return pl.skill(scores, baselines=("mean", "depth only", "ridge"), ax=drawn).figure


@like_stored
def test_leaderboard(scores):
    other = scores[scores["case"] == "C2"].assign(pearson=scores["pearson"] - 0.2, shares_patient=False)
    drawn = axes(1, 6.5, 3.4, left=0.1, right=0.88, bottom=0.16)
    return pl.leaderboard({"breast": scores, "another patient": other}, top=20, ax=drawn).figure


@like_stored
def test_genes_correlation(tissue):
    drawn = axes(2, 8, 3.6, left=0.06, right=0.88, bottom=0.12, top=0.88)
    return pl.genes_correlation(tissue, n=24, ax=drawn)[0].figure


@like_stored
def test_domains(tissue):
    table = tissue.tables["imputed"]
    x, y = (table.obsm["spatial"] // 260).astype(int).T
    table.obs["domain"] = pd.Categorical((x + 2 * y).astype(str))
    ax = axes(1, 5, 4, left=0.02, right=0.78, top=0.9, bottom=0.05)
    return pl.domains(tissue, ax=ax).figure


@like_stored
def test_explain(tissue):
    import sq_imputer as sqi

    nsl = sqi.get_model("nsl")
    model = sqi.tl.fit(tissue, nsl, genes=["NUC1"], plan=sqi.Plan(epochs=3, device="cpu", progress=False))
    sqi.tl.explain(tissue, "NUC1", model=model, method="stains", overwrite=True)
    drawn = axes(3, 10, 3.4, left=0.02, right=0.95, top=0.85, bottom=0.05)
    return pl.explain(tissue, "NUC1", ax=drawn)[0].figure
