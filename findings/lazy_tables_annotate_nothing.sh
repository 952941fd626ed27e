#!/usr/bin/env bash
# A table opened by anndata.experimental.read_lazy cannot be put into a SpatialData object if it annotates an element.
#
# Expected: the table that SpatialData itself wrote, opened lazily by anndata, is a table of the object as any other.
# Seen (spatialdata 0.8.0 with anndata 0.13.4; 0.7.3 with 0.12.19 as well): AttributeError, "'DataArray' object has no
#   attribute 'unique'". The obs of a lazy table is a Dataset2D whose columns are xarray arrays, and the check of the
#   region column takes them for pandas. A table without annotation is accepted.
# This project: sq_imputer.io.read_zarr(path, lazy_tables=True) reads obs and var, and leaves X, layers and obsm lazy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.12}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q spatialdata==0.8.0 anndata==0.13.4
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import anndata, geopandas, numpy as np, pandas as pd, spatialdata
from shapely import points
from spatialdata.models import ShapesModel, TableModel

spots = geopandas.GeoDataFrame({"radius": np.ones(3)}, geometry=points(np.eye(3, 2)))
obs = pd.DataFrame({"region": pd.Categorical(["spots"] * 3), "spot": range(3)}, index=list("abc"))
table = TableModel.parse(anndata.AnnData(np.eye(3), obs=obs), region="spots", region_key="region", instance_key="spot")
spatialdata.SpatialData(shapes={"spots": ShapesModel.parse(spots)}, tables={"table": table}).write("s.zarr")

sdata = spatialdata.read_zarr("s.zarr")
lazy = anndata.experimental.read_lazy("s.zarr/tables/table")
try:
    sdata.tables["table"] = lazy
except AttributeError as error:
    assert "'DataArray' object has no attribute 'unique'" in str(error), error
    print(f"still seen: spatialdata {spatialdata.__version__}, anndata {anndata.__version__}: AttributeError: {error}")
else:
    raise SystemExit("changed: a lazy table that annotates an element is accepted")
PYTHON
