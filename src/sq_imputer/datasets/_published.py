"""Where the authors of published sections put their files, and what they call them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sq_imputer.errors import BadInput
from sq_imputer.io import DIAMETER_UM, _counts_frame, _pixels, assemble, read_st
from sq_imputer.section.lattice import mpp_of_lattice

if TYPE_CHECKING:
    from spatialdata import SpatialData


def her2st_folder(folder: Path) -> Path | None:
    """`data/` of a copy of github.com/almaan/her2st, given that copy or the folder itself; None if it is neither."""
    return next((one for one in (folder, folder / "data") if (one / "ST-cnts").is_dir()), None)


def her2st_section(data: Path, name: str) -> SpatialData:
    """A section of these files; with the labels of the pathologist where there are some."""
    images = sorted((data / "ST-imgs" / name[:1] / name).glob("*.jpg"))
    if not images:
        there = ", ".join(sorted(path.name for path in (data / "ST-imgs").glob("*/*"))) or "none"
        raise BadInput(f"no image of section '{name}' in '{data / 'ST-imgs'}'; it has {there}. Pass sections=.")
    spots = _selected(data / "ST-spotfiles" / f"{name}_selection.tsv")
    counts = data / "ST-cnts" / f"{name}.tsv.gz"
    sdata = read_st(images[0], counts, spots, technology="st", patient=name[:1], section=name)
    labels = data / "ST-pat" / "lbl" / f"{name}_labeled_coordinates.tsv"
    if labels.is_file():
        found = pd.read_csv(labels, sep="\t")
        found.index = [f"{round(x)}x{round(y)}" for x, y in zip(found["x"], found["y"], strict=True)]
        obs = sdata.tables["table"].obs
        obs["label"] = pd.Categorical(found["label"].reindex(obs.index))
    return sdata


def mob_folder(folder: Path) -> Path | None:
    """`inst/extdata/counts` of a copy of github.com/jbergenstrahle/STUtility, given that or the copy; else None."""
    places = (folder, folder / "inst" / "extdata" / "counts")
    return next((one for one in places if list(one.glob("alignment_table_MOB*.tsv"))), None)


def mob_section(counts: Path, name: str) -> SpatialData:
    """A section of these files; symbols of its genes where `mouse_genes.tsv.gz` is beside them, or a folder above."""
    image, table = counts / f"{name}.jpg", counts / f"{name}.tsv"
    if not (image.is_file() and table.is_file()):
        there = ", ".join(sorted(path.stem for path in counts.glob("MOB*.jpg"))) or "none"
        raise BadInput(f"no section '{name}' in '{counts}'; it has {there}. Pass sections=.")
    frame, names = _counts_frame(table), [one / "mouse_genes.tsv.gz" for one in (counts, counts.parent)]
    known = next((path for path in names if path.is_file()), None)
    if known is not None:
        symbols = pd.read_csv(known, sep="\t").set_index("gene_id")["gene_name"]
        frame.columns = [symbols.get(gene, gene) for gene in frame.columns]
    spots = _selected(counts / f"alignment_table_{name}.tsv")
    return read_st(image, frame, spots, technology="st2k", patient="mouse1", section=name)


def visium_counts(folder: Path) -> Path | None:
    """The filtered counts of 10x outputs, whatever sample their name begins with; None if there are none."""
    return next(iter(sorted(folder.glob("*filtered_feature_bc_matrix.h5"))), None)


def visium_section(counts: Path, **known: str) -> SpatialData:
    """A section of 10x Visium as Space Ranger writes it: all genes, the spots in tissue, `tissue_hires_image.png`."""
    import scanpy as sc

    spatial = counts.parent / "spatial"
    names = ("tissue_positions_list.csv", "tissue_positions.csv")  # the second, of Space Ranger 2, has a header
    places = next((spatial / name for name in names if (spatial / name).is_file()), None)
    needed = [spatial / "scalefactors_json.json", spatial / "tissue_hires_image.png"]
    missing = [path.name for path in needed if not path.is_file()] + ([] if places else [names[0]])
    if missing:
        raise BadInput(f"'{spatial}' has no {', '.join(missing)}; unpack the spatial archive there.")
    columns = ["barcode", "in_tissue", "array_row", "array_col", "py", "px"]
    spots = pd.read_csv(places, header=None if places.name == names[0] else 0, names=columns, index_col="barcode")
    scale = json.loads(needed[0].read_text())["tissue_hires_scalef"]
    spots[["py", "px"]] *= scale
    table = sc.read_10x_h5(counts)
    table.var_names_make_unique()
    spots = spots[(spots["in_tissue"] == 1) & spots.index.isin(table.obs_names)].drop(columns="in_tissue")
    section = assemble(
        _pixels(needed[1]),
        spots.assign(measured=True),
        table[spots.index].X,
        list(table.var_names),
        mpp=mpp_of_lattice(spots[["px", "py"]], spots[["array_row", "array_col"]], "visium"),
        spot_diameter_um=DIAMETER_UM["visium"],
        **known,
    )
    section.tables["table"].var["gene_ids"] = table.var["gene_ids"].to_numpy()
    return section


def _selected(path: Path) -> pd.DataFrame:
    """Spots under tissue, of a table of the spot detector."""
    if not path.is_file():
        raise BadInput(f"there is no '{path}', which says where the spots are.")
    spots = pd.read_csv(path, sep="\t")
    return spots[np.asarray(spots["selected"] == 1)][["x", "y", "pixel_x", "pixel_y"]].reset_index(drop=True)
