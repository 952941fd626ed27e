"""Readers of published sections in a local folder. Nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sq_imputer.errors import BadInput, listed
from sq_imputer.io import read_st

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
        Folder with `<section>.jpg`, `<section>_counts.tsv.gz`, `<section>_spots_px.tsv`; if left out, the folder
        `her2st` in the folder that the environment variable `SQ_IMPUTER_DATA` names.
    sections
        Names: patient (letter) and number of the cut. C2 to C5 are serial cuts of one tumor.

    Raises
    ------
    BadInput
        If the folder or a section is not there; the message says where the data is published.
    """
    folder = _folder(path, "her2st", "https://github.com/almaan/her2st (images, counts and spot positions)")
    return {name: _label(_read(folder, name, "st", name[0]), folder / f"{name}_labels.tsv") for name in sections}


def mob(path: str | Path | None = None, sections: Sequence[str] = ("MOB1", "MOB2")) -> dict[str, SpatialData]:
    """Mouse olfactory bulb, two sections of one mouse, 1000 genes (Ståhl et al., Science 2016, by way of STUtility).

    Spots every 150 µm; µm per pixel is found from that lattice.

    Parameters
    ----------
    path
        Folder with `<section>.jpg`, `<section>_counts.tsv.gz`, `<section>_spots_px.tsv`; if left out, the folder
        `mob` in the folder that the environment variable `SQ_IMPUTER_DATA` names.
    sections
        Names.

    Raises
    ------
    BadInput
        If the folder or a section is not there; the message says where the data is published.
    """
    folder = _folder(path, "mob", "https://github.com/jbergenstrahle/STUtility")
    return {name: _read(folder, name, "st2k", "mouse1") for name in sections}


def mouse_brain(path: str | Path | None = None) -> SpatialData:
    """Mouse brain, coronal, 10x Visium: the 100 most expressed genes of 2702 spots (V1_Adult_Mouse_Brain; CC BY 4.0).

    Spots of 55 µm every 100 µm; µm per pixel is found from that lattice. Only spots in tissue are read.

    Parameters
    ----------
    path
        Folder with `tissue_pansharp_image.jpg`, `counts_top100genes_all4992spots.tsv.gz` and `spots_px.tsv`; if left
        out, the folder `mbrain_visium` in the folder that the environment variable `SQ_IMPUTER_DATA` names.

    Raises
    ------
    BadInput
        If the folder is not there; the message says where the data is published.
    """
    source = "https://www.10xgenomics.com/datasets (V1_Adult_Mouse_Brain)"
    folder = _folder(path, "mbrain_visium", source)
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
    folder = Path(path) if path is not None else Path(root) / name
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
