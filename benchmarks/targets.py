"""Targets other than genes: `ridge` beside how frequent things are, depth alone and coordinates alone.

    python benchmarks/targets.py [CASE ...] [--data FOLDER] [--json benchmarks/figures.json] [--picture FILE]

`labels`: the pathologist's labels of her2st A1, out of fold in five blocks; undetermined spots count as not labeled.
The others are of her2st C2 to C5, one section left out at a time; these are cuts of one tumor, and figures are means
over the four. `clusters`: Leiden clusters of the measured counts of all sections together, each gene centered within
sections. `signatures`: hallmark scores (scanpy.tl.score_genes) as numbers, against the mean of the predicted genes of
the signature and against the same score of all predicted genes. `proportions`: shares of these clusters among a spot
and its neighbors. `forms`: on toy tissue, three patients and three seeds, shares of what lies in a spot by a softmax,
against ridge on centered log-ratios, and against a Dirichlet whose parameters are the exponential of a linear map of
the same features, by penalized likelihood, the penalty chosen by leaving a training patient out; for both, zeros are
replaced by half of the least share above 0.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import scanpy as sc
import torch
from anndata import AnnData, concat
from scipy.spatial import cKDTree

import sq_imputer as sqi
from sq_imputer import bench
from sq_imputer.scores import metrics, shares

SECTIONS = ("C2", "C3", "C4", "C5")
UNKNOWN = "undetermined"
DATA = Path(os.environ.get("SQ_IMPUTER_DATA", Path(__file__).parents[2] / "shared" / "data"))
SIGNATURES = (
    "EPITHELIAL_MESENCHYMAL_TRANSITION",
    "ESTROGEN_RESPONSE_EARLY",
    "E2F_TARGETS",
    "MYC_TARGETS_V1",
    "OXIDATIVE_PHOSPHORYLATION",
    "HYPOXIA",
    "INTERFERON_GAMMA_RESPONSE",
    "ALLOGRAFT_REJECTION",
)
NEAR_UM = 300.0  # neighbors of a spot, at a pitch of 200 µm: the eight around it
DETECTED = 0.1  # share of training spots that a gene is predicted from
PARTS = ["nuclei", "glands", "stroma", "lymphocytes"]
SEEDS = (0, 1, 2)
PENALTIES = (1e-3, 1e-2, 0.1, 1.0)  # of a Dirichlet's map


def ridge() -> dict:
    """The model, as it is by default."""
    return {"ridge": sqi.get_model("ridge")()}


def read(data: Path) -> dict:
    """Sections with clusters, smoothed clusters and signatures in their tables."""
    sections = sqi.datasets.her2st(data / "her2st", sections=SECTIONS)
    tables = {name: sdata.tables["table"] for name, sdata in sections.items()}
    clusters, sets = clusters_of(tables), signatures(data)
    for name, sdata in sections.items():
        table = sdata.tables["table"]
        table.obs["cluster"] = clusters[name]
        table.obsm["shares"] = smoothed(sdata, clusters[name])
        table.obsm["signatures"] = scored(normalized(table), sets)
    return sections


def normalized(table: AnnData) -> AnnData:
    """A copy of the table, as log1p of counts per ten thousand."""
    found = AnnData(table.X.copy(), obs=pd.DataFrame(index=table.obs_names), var=pd.DataFrame(index=table.var_names))
    sc.pp.normalize_total(found, target_sum=1e4)
    sc.pp.log1p(found)
    return found


def clusters_of(tables: dict[str, AnnData]) -> dict[str, pd.Categorical]:
    """Leiden clusters of all sections together, whose genes are centered within sections."""
    together = concat(tables, label="section", index_unique="-")
    counted = np.asarray(together.X.sum(axis=1)).ravel() > 0
    known = normalized(together[counted])
    known.obs["section"] = together.obs["section"][counted]
    sc.pp.highly_variable_genes(known, n_top_genes=1000, batch_key="section")
    known = known[:, known.var["highly_variable"]].copy()
    values = known.X.toarray()
    for name in tables:
        rows = (known.obs["section"] == name).to_numpy()
        values[rows] -= values[rows].mean(axis=0)
    known.X = values
    sc.pp.pca(known, n_comps=20, random_state=0)
    sc.pp.neighbors(known, n_neighbors=15, random_state=0)
    sc.tl.leiden(known, resolution=0.6, flavor="igraph", n_iterations=2, directed=False, random_state=0)
    print(pd.crosstab(known.obs["leiden"], known.obs["section"]).to_string())
    found = known.obs["leiden"].astype(str).reindex(together.obs_names)
    section = together.obs["section"].to_numpy()
    return {name: pd.Categorical(found[section == name]) for name in tables}


def smoothed(sdata, clusters: pd.Categorical) -> pd.DataFrame:
    """Shares of the clusters among a spot and its neighbors."""
    xy, table = sqi.Slide.from_sdata(sdata), sdata.tables["table"]
    place = pd.DataFrame(xy.xy_um, index=xy.names).loc[table.obs_names].to_numpy()
    known = np.flatnonzero(clusters.codes >= 0)
    names = [str(name) for name in range(int(max(clusters.categories, key=int)) + 1)]
    one = np.array([[name == own for name in names] for own in clusters], dtype=float)
    tree = cKDTree(place[known])
    near = tree.query_ball_point(place, NEAR_UM)
    found = [one[known[rows]].mean(axis=0) if len(rows) else np.full(len(names), np.nan) for rows in near]
    return pd.DataFrame(np.array(found), index=table.obs_names, columns=names)


def signatures(data: Path) -> dict[str, list[str]]:
    """Genes of the hallmarks by name."""
    lines = (data / "genes" / "h.all.v7.0.symbols.gmt").read_text().splitlines()
    every = {name.removeprefix("HALLMARK_"): genes for name, _, *genes in (line.split("\t") for line in lines)}
    return {name: every[name] for name in SIGNATURES}


def scored(table: AnnData, sets: dict[str, list[str]]) -> pd.DataFrame:
    """Scores of the signatures at every row."""
    there = set(table.var_names)
    for name, genes in sets.items():
        sc.tl.score_genes(table, [gene for gene in genes if gene in there], score_name=name, random_state=0)
    return table.obs[list(sets)].astype(np.float64)


def cases(sections: dict, target) -> list[bench.Case]:
    """Each section once, by the others of the same patient."""
    slides = [sqi.Slide.from_sdata(sdata, section=name, target=target) for name, sdata in sections.items()]
    return bench.leave_one_out(slides, share_patient=True)


def by_section(sections: dict, target) -> dict:
    """Means over sections of every metric, by predictor."""
    table = bench.run(cases(sections, target), ridge(), per="section", progress=False)
    found = table.pivot_table(index="predictor", columns="metric", values="mean", sort=False)
    return {name: row.dropna().to_dict() for name, row in found.iterrows()}


def labels(data: Path) -> dict:
    """The pathologist's labels of A1, out of fold."""
    sdata = sqi.datasets.her2st(data / "her2st", sections=("A1",))["A1"]
    said = sdata.tables["table"].obs["label"].astype(object)
    sdata.tables["table"].obs["label"] = said.where(said != UNKNOWN)
    sqi.tl.predict(sdata, "ridge", target="obs:label", progress=False)
    scores = sqi.tl.score(sdata, target="obs:label", per="section", progress=False)
    found = scores.pivot(index="predictor", columns="metric", values="mean")
    return {name: found.loc[name].to_dict() for name in ("mean", "depth only", "coordinates only", "ridge")}


def compared(sections: dict, data: Path) -> dict:
    """Pearson, and given depth, of signatures as targets, of the mean of their genes, and of the score of all genes."""
    sets, found = signatures(data), []
    for direct, genes in zip(cases(sections, "obsm:signatures"), cases(sections, "genes"), strict=True):
        (one,) = bench.outcomes([direct], ridge(), progress=False)
        panel = detected(genes.training)
        (other,) = bench.outcomes([genes], ridge(), genes=panel, progress=False)
        rows = np.isin(one.case.rows, other.case.rows)
        truth, depth = one.truth[rows], one.depth[rows]
        predicted = AnnData(other.predicted["ridge"].astype(np.float32), var=pd.DataFrame(index=list(other.tested)))
        mean = [predicted[:, [g for g in sets[name] if g in set(other.tested)]].X.mean(axis=1) for name in one.tested]
        ways = {
            "as target": one.predicted["ridge"][rows],
            "mean of predicted genes": np.stack(mean, axis=1),
            "score of predicted genes": scored(predicted, {name: sets[name] for name in one.tested}).to_numpy(),
            "depth only": one.predicted["depth only"][rows],
            "coordinates only": one.predicted["coordinates only"][rows],
        }
        for way, said in ways.items():
            both = metrics.pearson(truth, said), metrics.pearson_given(truth, said, depth)
            known = {"way": way, "signature": one.tested, "pearson": both[0], "pearson_given_depth": both[1]}
            found.append(pd.DataFrame(known))
    means = pd.concat(found).groupby(["signature", "way"], sort=False).mean().unstack("way")
    means.loc["mean"] = means.mean()
    return {
        name: {
            way: {metric: none(row[metric, way]) for metric in ("pearson", "pearson_given_depth")}
            for way in (
                "as target",
                "mean of predicted genes",
                "score of predicted genes",
                "depth only",
                "coordinates only",
            )
        }
        for name, row in means.iterrows()
    }


def none(value: float) -> float | None:
    """The value, or None where there is none."""
    return None if np.isnan(value) else value


def detected(training) -> list[str]:
    """Genes that all training sections have, counted in a tenth of their spots."""
    every = [set(slide.var_names) for slide in training]
    names = [name for name in training[0].var_names if all(name in one for one in every)]
    at = []
    for slide in training:
        place = {name: number for number, name in enumerate(slide.var_names)}
        at.append((slide.counts.columns([place[name] for name in names]) > 0).toarray())
    share = np.concatenate(at).mean(axis=0)
    return [name for name, one in zip(names, share, strict=True) if one >= DETECTED]


def forms() -> dict:
    """A composition by a softmax, by centered log-ratios and by a Dirichlet, on toy tissue."""
    found = []
    for seed in SEEDS:
        sections = sqi.datasets.toy(3, size_px=1024, mpp=1.5, seed=seed)
        for sdata in sections.values():
            parts = sdata.tables["table"].obs[PARTS].to_numpy(dtype=float)
            total = parts.sum(axis=1, keepdims=True)
            parts = np.where(total > 0, parts / np.maximum(total, 1e-9), np.nan)
            sdata.tables["table"].obsm["parts"] = parts
            whole = np.maximum(parts, parts[parts > 0].min() / 2)
            log = np.log(whole / whole.sum(axis=1, keepdims=True))
            sdata.tables["table"].obsm["ratios"] = log - log.mean(axis=1, keepdims=True)
        targets = sqi.Target("obsm:parts", "composition"), "obsm:ratios"
        pairs = zip(*(toy_outcomes(sections, target) for target in targets), strict=True)
        for one, other in pairs:
            features, known, test = toy_features(one)
            ratios = np.exp(other.predicted["ridge"])
            ways = {
                "mean": one.predicted["mean"],
                "coordinates only": one.predicted["coordinates only"],
                "ridge, softmax": one.predicted["ridge"],
                "ridge, log-ratios": ratios / ratios.sum(axis=1, keepdims=True),
                "Dirichlet": dirichlet(features, known, test),
            }
            found += [{"way": way, **form(one.truth, said)} for way, said in ways.items()]
            found[-1]["zeros"] = float((one.truth == 0).mean())
    table = pd.DataFrame(found).groupby("way", sort=False).mean()
    print(f"share of parts that are 0: {table['zeros'].iloc[-1]:.3f}")
    return {way: row.dropna().to_dict() for way, row in table.drop(columns="zeros").iterrows()}


def toy_outcomes(sections: dict, target) -> Iterator[bench.Outcome]:
    """Each patient once, by the others."""
    slides = [sqi.Slide.from_sdata(sdata, target=target) for sdata in sections.values()]
    model = sqi.get_model("ridge")
    return bench.outcomes(bench.leave_one_out(slides), {"ridge": model(model.Config.small())}, progress=False)


def toy_features(outcome: bench.Outcome) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Features of every training section and its shares, and features of the tested rows, as `ridge` sees them."""
    model, case = sqi.get_model("ridge"), outcome.case
    training = [slide.with_genes(outcome.genes, outcome.case.test.target.unit) for slide in case.training]
    fitted = model(model.Config.small()).fit(training, sqi.Plan(device="cpu", progress=False))
    rows = [np.flatnonzero(slide.measured) for slide in training] + [case.rows]
    slides = [*training, case.test]
    found = [next(fitted.seen(s, len(r), rows=r)) for s, r in zip(slides, rows, strict=True)]
    known = [slide.expression[own] for slide, own in zip(slides[:-1], rows, strict=False)]
    ordered = [batch.features.numpy()[np.argsort(batch.index.numpy())] for batch in found]
    return ordered[:-1], known, ordered[-1]


def dirichlet(features: list[np.ndarray], known: list[np.ndarray], test: np.ndarray) -> np.ndarray:
    """Mean shares of a Dirichlet regression; its penalty is the likeliest for patients that were left out."""
    least = min(part[part > 0].min() for part in known) / 2
    whole = [np.maximum(part, least) / np.maximum(part, least).sum(axis=1, keepdims=True) for part in known]
    x, y = ([torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in parts] for parts in (features, whole))
    loss = dict.fromkeys(PENALTIES, 0.0)
    for k in range(len(x)):
        others = [torch.cat([part for j, part in enumerate(parts) if j != k]) for parts in (x, y)]
        for penalty in PENALTIES:
            loss[penalty] -= float(likelihood(x[k], y[k], *dirichlet_map(*others, penalty)))
    weight, bias = dirichlet_map(torch.cat(x), torch.cat(y), min(loss, key=loss.get))
    return (torch.from_numpy(test.astype(np.float64)) @ weight + bias).softmax(dim=1).numpy()


def likelihood(x_NF, y_NK, weight_FK, bias_K):
    """Mean logarithm of the density of shares under parameters `exp(x W + b)`."""
    return torch.distributions.Dirichlet((x_NF @ weight_FK + bias_K).exp().clamp(1e-4, 1e4)).log_prob(y_NK).mean()


def dirichlet_map(x_NF, y_NK, penalty: float):
    """Weights and bias of the largest penalized likelihood."""
    shape = (x_NF.shape[1], y_NK.shape[1])
    found = [torch.zeros(size, dtype=torch.float64, requires_grad=True) for size in (shape, shape[1])]
    optimizer = torch.optim.LBFGS(found, max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = penalty * found[0].pow(2).sum() - likelihood(x_NF, y_NK, *found)
        loss.backward()
        return loss

    optimizer.step(closure)
    return [part.detach() for part in found]


def form(truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Scores of a composition."""
    rmse = float(np.sqrt(((truth - said) ** 2).mean()))
    bias = float(np.abs(said.mean(axis=0) - truth.mean(axis=0)).mean())
    pearson = float(np.mean(metrics.pearson(truth, said)))  # NaN of a constant
    return {"pearson": pearson, **shares.composition_scores(truth, said), "rmse": rmse, "bias of means": bias}


def picture(sections: dict, path: Path) -> None:
    """Clusters of C3 as measured and as predicted by the other sections."""
    import matplotlib

    matplotlib.use("Agg")
    others = [sdata for name, sdata in sections.items() if name != "C3"]
    model = sqi.tl.fit(others, "ridge", target="obs:cluster", progress=False)
    sqi.tl.predict(sections["C3"], model, allow_same_patient=True, progress=False)
    axes = sqi.pl.compare(sections["C3"], key="imputed_cluster")
    np.ravel(axes)[0].figure.savefig(path, dpi=120, bbox_inches="tight")


CASES = ("labels", "clusters", "signatures", "proportions", "forms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all if left out")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    wanted = arguments.cases or CASES
    sections = read(arguments.data) if {"clusters", "signatures", "proportions"} & set(wanted) else {}
    ways = {
        "labels": lambda: labels(arguments.data),
        "clusters": lambda: by_section(sections, "obs:cluster"),
        "signatures": lambda: compared(sections, arguments.data),
        "proportions": lambda: by_section(sections, sqi.Target("obsm:shares", "composition")),
        "forms": forms,
    }
    found = {}
    for case in wanted:
        found[case] = rounded(ways[case]())
        print(f"\n{case}\n{pd.DataFrame(found[case]).T.to_string()}", flush=True)
        if arguments.json:
            figures = json.loads(arguments.json.read_text())
            figures["targets"] = {**figures.get("targets", {}), case: found[case]}
            arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    if arguments.picture:
        picture(sections, arguments.picture)


def rounded(found):
    """Figures to three places."""
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    return found if found is None else round(float(found), 3)


if __name__ == "__main__":
    main()
