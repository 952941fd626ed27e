"""Readers of published sections in a local folder. Nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sq_imputer.datasets._published import (
    her2st_folder,
    her2st_section,
    mob_folder,
    mob_section,
    visium_counts,
    visium_section,
)
from sq_imputer.errors import BadInput, listed
from sq_imputer.io import read_st
from sq_imputer.progress import track

if TYPE_CHECKING:
    from spatialdata import SpatialData

ROOT = "SQ_IMPUTER_DATA"


def her2st(
    path: str | Path | None = None, sections: Sequence[str] = ("C2", "C3", "C4", "C5")
) -> dict[str, SpatialData]:
    """HER2-positive breast tumors, legacy Spatial Transcriptomics (Andersson et al., Nature Communications, 2021).

    Spots of 100 µm every 200 µm; µm per pixel is found from that lattice. Up to 3 spots of a section have no counts:
    they are in the shapes and not in the table. Where a pathologist labeled the spots (A1), `obs["label"]` has the
    labels. The authors' clusters are not read: they were made from the expression. License of the data: CC BY 4.0.

    Parameters
    ----------
    path
        A copy of the repository as its authors publish it (https://github.com/almaan/her2st), or its `data/`; or a
        folder with `<section>.jpg`, `<section>_counts.tsv.gz`, `<section>_spots_px.tsv`. If left out, the folder
        `her2st` in the folder that the environment variable `SQ_IMPUTER_DATA` names.
    sections
        Names: patient (letter) and number of the cut. C2 to C5 are serial cuts of one tumor.

    Raises
    ------
    BadInput
        If the folder or a section is not there; the message says where the data is published.
    """
    folder = _folder(path, "her2st", "https://github.com/almaan/her2st (images, counts and spot positions)")
    data = her2st_folder(folder)

    def read(name: str) -> SpatialData:
        if data is not None:
            return her2st_section(data, name)
        return _label(_read(folder, name, "st", name[0]), folder / f"{name}_labels.tsv")

    return {name: read(name) for name in track(sections, "reading her2st", len(sections))}


def mob(path: str | Path | None = None, sections: Sequence[str] = ("MOB1", "MOB2")) -> dict[str, SpatialData]:
    """Mouse olfactory bulb, two sections of one mouse, 1000 genes (Ståhl et al., Science 2016, by way of STUtility).

    Spots every 150 µm; µm per pixel is found from that lattice.

    Parameters
    ----------
    path
        A copy of https://github.com/jbergenstrahle/STUtility, or its `inst/extdata/counts`, where `mouse_genes.tsv.gz`
        beside it gives genes their symbols; or a folder with `<section>.jpg`, `<section>_counts.tsv.gz`,
        `<section>_spots_px.tsv`. If left out, the folder `mob` in the folder that the environment variable
        `SQ_IMPUTER_DATA` names.
    sections
        Names.

    Raises
    ------
    BadInput
        If the folder or a section is not there; the message says where the data is published.
    """
    folder = _folder(path, "mob", "https://github.com/jbergenstrahle/STUtility")
    counts = mob_folder(folder)

    def read(name: str) -> SpatialData:
        return _read(folder, name, "st2k", "mouse1") if counts is None else mob_section(counts, name)

    return {name: read(name) for name in track(sections, "reading mob", len(sections))}


def mouse_brain(path: str | Path | None = None) -> SpatialData:
    """Mouse brain, coronal, 10x Visium: 2702 spots in tissue (V1_Adult_Mouse_Brain; CC BY 4.0).

    All genes of the files that 10x publishes, over `tissue_hires_image.png`; of the other folder the 100 most
    expressed, which benchmarks are quoted on. Spots of 55 µm every 100 µm; µm per pixel is found from that lattice.
    Only spots in tissue are read.

    Parameters
    ----------
    path
        Folder with what 10x publishes: `V1_Adult_Mouse_Brain_filtered_feature_bc_matrix.h5`, and the archive of
        `spatial/`, unpacked; or a folder with `tissue_pansharp_image.jpg`, `counts_top100genes_all4992spots.tsv.gz` and
        `spots_px.tsv`. If left out, the folder `mbrain_visium` in the folder that the environment variable
        `SQ_IMPUTER_DATA` names.

    Raises
    ------
    BadInput
        If the folder is not there; the message says where the data is published.
    """
    source = "https://www.10xgenomics.com/datasets (V1_Adult_Mouse_Brain)"
    folder = _folder(path, "mbrain_visium", source)
    counts = visium_counts(folder)
    if counts is not None:
        return visium_section(counts, section="mouse_brain", patient="mouse1")
    return read_st(
        folder / "tissue_pansharp_image.jpg",
        folder / "counts_top100genes_all4992spots.tsv.gz",
        folder / "spots_px.tsv",
        technology="visium",
        patient="mouse1",
        section="mouse_brain",
    )


def _folder(path: str | Path | None, name: str, source: str) -> Path:
    root = os.environ.get(ROOT)
    if path is None and not root:
        raise BadInput(
            f"where is the data '{name}'? Pass path=, the folder that holds it, or set {ROOT} to the folder that holds "
            f"'{name}/'. It is published at {source}. datasets.toy() needs no data."
        )
    folder = Path(path).expanduser() if path is not None else Path(root) / name
    if not folder.is_dir():
        hint = f" If '{path}' is a section, pass sections=['{path}']." if str(path).isalnum() else ""
        raise BadInput(
            f"no folder '{folder}'. Pass path=, the folder that holds '{name}'; it is published at {source}.{hint}"
        )
    return folder


def _read(folder: Path, name: str, technology: str, patient: str) -> SpatialData:
    if not (folder / f"{name}.jpg").is_file():
        there = sorted(image.stem for image in folder.glob("*.jpg"))
        raise BadInput(f"no section '{name}' in '{folder}'; it has {listed(there, 12)}. Pass sections=.")
    return read_st(
        folder / f"{name}.jpg",
        folder / f"{name}_counts.tsv.gz",
        folder / f"{name}_spots_px.tsv",
        technology=technology,
        patient=patient,
    )


def _label(sdata: SpatialData, path: Path) -> SpatialData:
    if path.is_file():
        labels = pd.read_csv(path, sep="\t", index_col="barcode")["label"]
        obs = sdata.tables["table"].obs
        obs["label"] = pd.Categorical(labels.reindex(obs.index))
    return sdata
