"""What comes after predicting, with a million cells: `tl.domains`, `tl.agreement`, `tl.score`, `pl.compare`.

    python benchmarks/verbs_at_scale.py [--rows 100000 1000000] [--genes 300] [--out FOLDER]
        [--only kmeans leiden agreement score compare] [--json benchmarks/figures.json]

Cells at 5,000 per mm² on a picture of toy tissue at 2 µm per pixel. A result table as `tl.predict` writes it is made by
hand and put into a store: eight regions, each with its own genes, the measured and the predicted of which are noisy,
and features of texture that know the regions worse. The domains asked for are eight; `leiden` is asked for a
resolution. Scores are without baselines, against counts of the same genes in a table beside. Every figure is of a
process of its own, which opens the store as a prediction of so many cells is left, its matrices on the disk: wall and
CPU seconds of the call, the most memory that the process ever held, and beside it what was held before the call. ARI is
that of the domains and the planted regions.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

PER_MM2, MPP, REGIONS, CHUNK_ROWS = 5000.0, 2.0, 8, 512
VERBS = ("kmeans", "leiden", "agreement", "score", "compare")
AGAIN = [sys.executable, __file__]  # in a process of its own


def planted(n: int, edge_um: float) -> tuple[np.ndarray, np.ndarray]:
    """Places of cells, and regions: what is nearest to one of eight points."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, edge_um, (n, 2))
    seeds = rng.uniform(0, edge_um, (REGIONS, 2))
    return xy, np.square(xy[:, None] - seeds).sum(axis=2).argmin(axis=1)


def drawn(regions: np.ndarray, n_columns: int, noise: float, seed: int):
    """Columns with a mean in each region, and noise: lazily, some rows at a time."""
    import dask.array as da

    means = np.random.default_rng(n_columns).normal(size=(REGIONS, n_columns)).astype(np.float32)

    def some(part: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng([seed, block_id[0]])
        return means[part] + np.float32(noise) * rng.standard_normal((len(part), n_columns), dtype=np.float32)

    rows = da.from_array(regions, chunks=CHUNK_ROWS)
    return rows.map_blocks(some, new_axis=1, chunks=(rows.chunks[0], n_columns), dtype=np.float32)


def counted(regions: np.ndarray, genes: list[str], instances):
    """Counts of cells, sparse, one in five of them above 0, by region."""
    from anndata import AnnData
    from scipy.sparse import csr_matrix, vstack
    from spatialdata.models import TableModel

    means, rng = np.random.default_rng(4).uniform(0, 0.5, (REGIONS, len(genes))), np.random.default_rng(5)
    rows = [csr_matrix(rng.poisson(means[part]).astype(np.float32)) for part in np.array_split(regions, 100)]
    obs = {"region": "cells", "cell": instances}
    table = AnnData(vstack(rows).tocsr(), obs=obs)
    table.var_names, table.obs_names = genes, instances.astype(str)
    table.obs["region"] = table.obs["region"].astype("category")
    return TableModel.parse(table, region="cells", region_key="region", instance_key="cell")


def made(n: int, n_genes: int, folder: Path) -> None:
    """A store with the result table of so many cells, and the regions beside it."""
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel
    from spatialdata.transformations import Identity

    import sq_imputer as sqi
    from sq_imputer.store import write

    warnings.simplefilter("ignore")
    edge = float(np.sqrt(n / PER_MM2) * 1000)
    xy, regions = planted(n, edge)
    toy = sqi.datasets.toy(1, size_px=1000, mpp=0.5, seed=0)["P1"]
    tissue = np.asarray(sqi.Slide.from_sdata(toy).frame.pyramid.levels[0])[:3]
    side = int(edge / MPP) + 1
    times = -(-side // tissue.shape[1])
    place = {"transformations": {"global": Identity()}}
    image = Image2DModel.parse(np.tile(tissue, (1, times, times))[:, :side, :side], dims=("c", "y", "x"), **place)
    cells = ShapesModel.parse(xy / MPP, geometry=0, radius=3.0, **place)
    few = SpatialData(images={"he": image}, shapes={"cells": cells[:50]})
    model = sqi.tl.fit(toy, "ridge", genes=5, resolution=4.0, progress=False)  # as coarse as the picture
    sqi.tl.predict(few, model, shapes_key="cells", table_key=None, mpp=MPP, progress=False)
    known = few.tables["imputed"].uns["sq_imputer"]["ridge"]
    texture = {"encoder": "texture", "extent_um": 112.0, "size_px": 224}
    table = write.new_table(
        None,
        cells.index.astype(str),
        [f"GENE{k}" for k in range(n_genes)],
        region="cells",
        instance_key="instance_id",
        instances=cells.index,
        obsm={"spatial": xy},
        uns={"sq_imputer": {"ridge": known, "embeddings": {"X_texture": texture}}},
    )
    table.X = table.layers["ridge"] = drawn(regions, n_genes, 3.0, 1)
    table.layers["measured"] = drawn(regions, n_genes, 4.0, 2)
    table.obsm["X_texture"] = drawn(regions, 229, 6.0, 3)
    # domains that tl.agreement finds there: those that it makes again are what costs
    table.obs["planted"] = regions.astype(str)
    params = {"method": "kmeans", "n_domains": REGIONS, "layer": "ridge", "use": "prediction"}
    table.uns["planted"] = {"params": params}
    tables = {"imputed": table, "counts": counted(regions, list(table.var_names), cells.index)}
    whole = SpatialData(images={"he": image}, shapes={"cells": cells}, tables=tables)
    whole.write(folder / "cells.zarr")
    np.save(folder / "regions.npy", regions)


def call(verb: str, sdata, out: Path | None) -> None:
    import sq_imputer as sqi

    if verb == "kmeans":
        sqi.tl.domains(sdata, method="kmeans", n_domains=REGIONS)
    elif verb == "leiden":
        sqi.tl.domains(sdata, resolution=0.1)
    elif verb == "agreement":
        sqi.tl.agreement(sdata, domain="planted", n_random=10)
    elif verb == "score":
        del sdata.tables["imputed"].layers["measured"]  # which is not of the counts beside: they are what is scored
        sqi.tl.score(sdata, baselines=False, table_key="counts", mpp=MPP)
    else:
        axes = sqi.pl.compare(sdata, ["GENE0"], layer="ridge")
        axes[0, 0].figure.savefig("/dev/null" if out is None else out / "compare.png", dpi=100, format="png")


def memory_mb(field: str) -> float:
    """MiB of this process: `VmRSS` now, `VmHWM` at most."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def one(verb: str, folder: Path, out: Path | None) -> None:
    """One figure, printed as JSON."""
    import torch
    from sklearn.metrics import adjusted_rand_score

    import sq_imputer as sqi

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sdata = sqi.io.read_zarr(
        folder / "cells.zarr", elements=["he", "cells", "imputed", *["counts"] * (verb == "score")]
    )
    before, wall, cpu = memory_mb("VmRSS"), time.perf_counter(), time.process_time()
    call(verb, sdata, out)
    found = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    found |= {"before_mb": before, "peak_mb": memory_mb("VmHWM")}
    if verb in ("kmeans", "leiden"):
        domains = sdata.tables["imputed"].obs["domain"]
        found |= {"ari": adjusted_rand_score(np.load(folder / "regions.npy"), domains)}
        found["domains"] = int(domains.nunique())
    print(json.dumps(found))


def run(args) -> None:
    for n in args.rows:
        with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
            subprocess.run([*AGAIN, "--make", folder, str(n), str(args.genes)], check=True)
            for verb in args.only:
                command = [*AGAIN, "--one", verb, folder]
                command += [] if args.out is None else ["--out", str(args.out)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                shown(verb, n, json.loads(done.stdout.splitlines()[-1]), args.json)


def shown(verb: str, n: int, found: dict, path: Path | None) -> None:
    """Print a figure, and bring the file of figures up to date."""
    if path is not None:
        figures = json.loads(path.read_text())
        figures.setdefault("verbs at scale", {})[f"{verb}, {n:,}"] = {k: round(v, 3) for k, v in found.items()}
        path.write_text(json.dumps(figures, indent=1) + "\n")
    ending = f"; {found['domains']} domains, ARI {found['ari']:.3f}" if "ari" in found else ""
    print(
        f"{n:>9,} rows, {verb}: {found['wall']:.0f} s, {found['cpu']:.0f} CPU-seconds; "
        f"{found['peak_mb']:.0f} MiB at most, {found['before_mb']:.0f} before{ending}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--only", nargs="+", choices=VERBS, default=VERBS)
    parser.add_argument("--out", type=Path, default=None, help="folder for the picture of pl.compare")
    parser.add_argument("--json", type=Path, default=None, help="file of figures to be brought up to date")
    parser.add_argument("--scratch", type=Path, default=None, help="for the store, 4 GB for a million rows")
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        made(int(args.make[1]), int(args.make[2]), Path(args.make[0]))
    elif args.one:
        one(args.one[0], Path(args.one[1]), args.out)
    else:
        run(args)


if __name__ == "__main__":
    main()
