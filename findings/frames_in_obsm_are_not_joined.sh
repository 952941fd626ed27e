#!/usr/bin/env bash
# spatialdata.concatenate does not join tables that have a DataFrame in obsm.
#
# Expected: with concatenate_tables=True, tables of sections are joined whatever is in their obsm, as anndata.concat does;
#   proportions of cell types are often kept there as a DataFrame, which has their names.
# Seen (spatialdata 0.7.3 with anndata 0.12.19): ValueError, "value.index does not match parent's obs names". Rows of
#   the tables are renamed ("a" to "a-one") and those of the frame are not. spatialdata 0.8.0 with anndata 0.13.4 joins them.
# This project: docs/concepts/targets.md says to keep arrays in obsm where objects are to be joined.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.12}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q spatialdata==0.7.3 anndata==0.12.19
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import anndata, geopandas, numpy as np, pandas as pd, spatialdata
from shapely import points
from spatialdata.models import ShapesModel, TableModel


def section(name):
    spots = ShapesModel.parse(geopandas.GeoDataFrame({"radius": np.ones(3)}, geometry=points(np.eye(3, 2))))
    obs = pd.DataFrame({"region": pd.Categorical([name] * 3), "spot": range(3)}, index=list("abc"))
    table = anndata.AnnData(np.eye(3), obs=obs)
    table.obsm["parts"] = pd.DataFrame(np.eye(3), index=table.obs_names, columns=list("xyz"))
    table = TableModel.parse(table, region=name, region_key="region", instance_key="spot")
    return spatialdata.SpatialData(shapes={name: spots}, tables={"table": table})


sections = {name: section(name) for name in ("one", "two")}
try:
    spatialdata.concatenate(sections, concatenate_tables=True)
except ValueError as error:
    assert "index" in str(error), error
    print(f"still seen: spatialdata {spatialdata.__version__}, anndata {anndata.__version__}: ValueError: {error}")
else:
    raise SystemExit("changed: sections whose tables have a DataFrame in obsm are joined")
PYTHON
