"""Memory and time of fitting ridge on a table of 500,000 rows and 18,000 genes: left in the store, and read whole.

A toy: bins on a lattice over a drawn picture, sparse counts (about 20 genes per row) of which 30 follow the picture.
Each way runs in a process of its own, and its peak is that of the process, so the libraries (about 0.6 GB) count as
well; the ways are told apart by `--way`, without which both are run, one after the other.

    python benchmarks/lazy.py [--rows 500000] [--genes 18000]
"""

from __future__ import annotations

import argparse
import resource
import runpy
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

PLANTED = 30  # genes that follow the picture
DEPTH = 20  # other counts per row, on average
PITCH_UM = 8.0
ENCODER = Path(__file__).parent.parent / "docs/_examples/mean_color.py"  # six numbers: tables are measured here
WAYS = ("lazy", "memory")


def build(path: Path, n_rows: int, n_genes: int) -> None:
    """Write the store; the table goes there in blocks, so that building it needs no memory either."""
    import anndata
    import geopandas
    import pandas as pd
    import zarr
    from scipy.sparse import csr_matrix
    from shapely import points
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Scale

    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(n_rows)))
    y, x = np.divmod(np.arange(n_rows), side)
    um = Scale([2.0, 2.0], axes=("x", "y"))  # of a pixel
    size = int(side * PITCH_UM / 2) + 64
    wave = np.sin(np.arange(size) / 90)
    red = 140 + 80 * wave[:, None] * wave[None]
    image = np.stack([red, 200 - red / 2, 180 + 0 * red]) + rng.normal(0, 6, (1, size, size))
    image = image.clip(0, 255).astype(np.uint8)
    centers = np.column_stack([x, y]) * PITCH_UM / 2 + 32
    frame = geopandas.GeoDataFrame({"radius": np.full(n_rows, 2.0)}, geometry=points(centers))
    obs = pd.DataFrame({"region": pd.Categorical(["bins"] * n_rows), "bin": np.arange(n_rows)})
    obs.index = obs.index.astype(str)
    var = pd.DataFrame(index=[f"g{k}" for k in range(n_genes)])
    empty = anndata.AnnData(csr_matrix((n_rows, n_genes), dtype=np.float32), obs=obs, var=var)
    table = TableModel.parse(empty, region="bins", region_key="region", instance_key="bin")
    SpatialData(
        images={"he": Image2DModel.parse(image, dims=("c", "y", "x"), transformations={"um": um})},
        shapes={"bins": ShapesModel.parse(frame, transformations={"um": um})},
        tables={"table": table},
    ).write(path)
    light = image[0][centers[:, 1].astype(int), centers[:, 0].astype(int)] / 255
    _write_counts(zarr.open_group(path / "tables/table", mode="r+", use_consolidated=False), light, n_genes, rng)
    zarr.consolidate_metadata(path)


def _write_counts(group, light: np.ndarray, n_genes: int, rng) -> None:
    """Replace the empty X by counts that were drawn block after block."""
    from scipy.sparse import coo_matrix

    n_rows, step = len(light), 20_000
    attrs = dict(group["X"].attrs)
    del group["X"]
    x = group.create_group("X")
    x.attrs.update(attrs)
    indptr = [0]
    kinds = {"data": np.float32, "indices": np.int32}
    arrays = {name: x.create_array(name, shape=(0,), chunks=(2**20,), dtype=kind) for name, kind in kinds.items()}
    for start in range(0, n_rows, step):
        here = light[start : start + step]
        planted = rng.poisson(2 * here[:, None] * np.linspace(0.2, 1, PLANTED))
        others = rng.poisson(DEPTH, len(here))
        row = np.concatenate([np.repeat(np.arange(len(here)), PLANTED), np.repeat(np.arange(len(here)), others)])
        gene = np.concatenate([np.tile(np.arange(PLANTED), len(here)), rng.integers(PLANTED, n_genes, others.sum())])
        count = np.concatenate([planted.ravel(), np.ones(others.sum())])
        block = coo_matrix((count, (row, gene)), shape=(len(here), n_genes)).tocsr()
        block.eliminate_zeros()
        for name, values in (("data", block.data), ("indices", block.indices)):
            arrays[name].append(values.astype(kinds[name]))
        indptr.extend((indptr[-1] + np.cumsum(np.diff(block.indptr))).tolist())
    x.create_array("indptr", data=np.array(indptr, dtype=np.int64), chunks=(2**20,))


def fit(path: Path, way: str) -> None:
    """Fit and say what it took."""
    import sq_imputer as sqi

    warnings.simplefilter("ignore")
    runpy.run_path(str(ENCODER))
    start = time.perf_counter()
    sdata = sqi.io.read_zarr(path, lazy_tables=way == "lazy")
    read = time.perf_counter()
    slide = sqi.Slide.from_sdata(sdata, mpp=2.0)
    model = sqi.get_model("ridge")
    model = model(model.Config(extent_um=16, size_px=8, context_um=(), encoders=("mean_color",)))
    model.fit([slide.with_genes([f"g{k}" for k in range(PLANTED)])])
    stop = time.perf_counter()
    chosen = time.perf_counter()
    sqi.genes.choose_genes([slide], PLANTED)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"| {way} | {len(slide):,} x {len(slide.var_names):,} | {peak:.2f} | {read - start:.1f} | {stop - read:.1f} | "
        f"{time.perf_counter() - chosen:.1f} | {len(model.genes)} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--genes", type=int, default=18_000)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--store", type=Path, help="a store that was built before")
    args = parser.parse_args()
    if args.way:
        fit(args.store, args.way)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy.zarr"
        build(path, args.rows, args.genes)
        print("| table | size | peak GB | open, s | read counts and fit, s | choose 30 genes, s | genes |", flush=True)
        print("|---|---|---|---|---|---|---|", flush=True)
        for way in WAYS:
            subprocess.run([sys.executable, __file__, "--way", way, "--store", str(path)], check=True)


if __name__ == "__main__":
    main()
