"""Toy sections with a known truth: H&E that is drawn, and counts whose rates follow from what was drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.ndimage import center_of_mass
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from sq_imputer.datasets._drawing import Tissue, draw_stain, draw_tissue, render
from sq_imputer.errors import BadInput
from sq_imputer.io import assemble
from sq_imputer.progress import track
from sq_imputer.section.lattice import lattice_um

if TYPE_CHECKING:
    from spatialdata import SpatialData

SPOT_UM = 55.0
MORPHOLOGY = ("nuclei", "glands", "stroma", "lymphocytes")
# Typical mean and spread of the area fractions within a spot. Fixed, so that a rule says the same in every section.
_CENTER, _SPREAD = np.array([0.20, 0.24, 0.53, 0.09]), np.array([0.12, 0.32, 0.40, 0.14])
_RULES = dict(zip(("NUC", "GLD", "STR", "LYM"), MORPHOLOGY, strict=True)) | {"IND": "independent", "HK": "constant"}
_DEPTH, _DISPERSION = 15_000, 10
# What the color of a spot does not tell: how many nuclei are in it, how long their outlines are (µm per µm²), and the
# share of nuclei around it. What the fractions say of each (a constant first), and the spread of the rest.
_BEYOND = {"DEN": "density", "EDG": "outline", "NBR": "surroundings"}
_EXPECTED = np.array(
    [[1.52, 68.6, -4.3, -0.8, 3.9], [0.011, 0.612, -0.034, 0.002, -0.055], [0.026, 0.044, 0.094, 0.085, 0.605]]
)
_REST = np.array([2.5, 0.0125, 0.043])
RING_UM = (100.0, 200.0)  # from the middle of a spot


def toy(
    n_patients: int = 3,
    *,
    sections_per_patient: int = 1,
    size_px: int = 2000,
    mpp: float = 0.75,
    spots: int | None = None,
    n_genes: int = 60,
    depth_from_cells: bool = False,
    beyond_color: bool = False,
    seed: int = 0,
) -> dict[str, SpatialData]:
    """Toy sections whose expression follows from the image by known rules.

    Every section has its own tissue, every patient an own stain. The share of gene g in spot i is the softmax over
    genes of ``base[g] + coef[g] · z[i]``, where ``z`` are the standardized area fractions of nuclei, glands, stroma and
    lymphocytes in the spot. Counts are negative binomial (dispersion 10) around share × depth, and depth is lognormal
    (median 15 000). Genes are named after their rule: `NUC..`, `GLD..`, `STR..`, `LYM..` follow one fraction; `IND..`
    vary from spot to spot, but not with the image; `HK..` have a constant rate and make nine tenths of the library.

    Parameters
    ----------
    n_patients
        Patients; the k-th does not depend on how many there are.
    sections_per_patient
        Sections of each; they share the stain.
    size_px
        Side of the image.
    mpp
        µm per pixel. A seed and an extent (`size_px * mpp`) give the same tissue at every resolution.
    spots
        At most this many spots, those nearest to the middle; all of the lattice (pitch 100 µm) on tissue if left out.
    n_genes
        Genes, a sixth of every kind.
    depth_from_cells
        Let depth follow the nuclei in the spot, as in real tissue, instead of being independent of the image.
    beyond_color
        Further genes, as many of each kind, that the color of a spot does not tell, nor how much of it is nuclei,
        glands or stroma: `DEN..` follow the number of nuclei, of which many are two halves in some regions; `EDG..`
        the length of their outlines; `NBR..` the nuclei 100 to 200 µm around the spot. Of each, what is left
        once its line on the four fractions is taken out.
    seed
        Seed of everything.

    Returns
    -------
    SpatialData by section name, `"P1"`, `"P2"`, ... or `"P1_1"`, `"P1_2"`, ...: image `"he"`, shapes `"spots"`, labels
    `"nuclei"`, and table `"table"` with counts in X and the truth beside them: `obs` has the area fractions, `var` the
    rules (`rule`, `base`, `coef_nuclei`, ...), `obsm["truth"]` `(n, genes)` the log of the expected shares.

    Raises
    ------
    BadInput
        If sizes are too small to hold tissue or genes.
    """
    if n_genes < len(_RULES):
        raise BadInput(f"n_genes is {n_genes}; one of each kind needs {len(_RULES)} or more.")
    if size_px * mpp < 300:
        raise BadInput(f"size_px * mpp is {size_px * mpp:.0f} µm; a piece of tissue with spots needs 300 µm or more.")
    rules = _rules(np.random.default_rng([seed, 0]), n_genes, beyond_color)
    sections = {}
    for k in track(range(1, n_patients + 1), "drawing toy tissue", n_patients):
        stain = draw_stain(np.random.default_rng([seed, k]))
        for j in range(1, sections_per_patient + 1):
            name = f"P{k}" if sections_per_patient == 1 else f"P{k}_{j}"
            rng, pixel_rng = np.random.default_rng([seed, k, j]).spawn(2)
            tissue = draw_tissue(rng, size_px, mpp, halves=beyond_color)
            places = _spots(tissue, mpp, spots)
            places = places.assign(**beyond(tissue, places, mpp)) if beyond_color else places
            log_share = _log_share(rng, places, rules)
            sdata = assemble(
                render(tissue, stain, pixel_rng),
                places,
                _counts(rng, log_share, places["nuclei"].to_numpy(), depth_from_cells),
                list(rules.index),
                mpp=mpp,
                spot_diameter_um=SPOT_UM,
                section=name,
                patient=f"P{k}",
            )
            sections[name] = _with_truth(sdata, tissue, rules, log_share)
    return sections


def _with_truth(sdata: SpatialData, tissue: Tissue, rules: pd.DataFrame, log_share: np.ndarray) -> SpatialData:
    from spatialdata.models import Labels2DModel
    from spatialdata.transformations import get_transformation

    table = sdata.tables["table"]
    table.var = rules.copy()
    table.obsm["truth"] = log_share.astype(np.float32)
    systems = get_transformation(sdata.images["he"], get_all=True)
    sdata.labels["nuclei"] = Labels2DModel.parse(tissue.nuclei, dims=("y", "x"), transformations=systems)
    return sdata


def _rules(rng: np.random.Generator, n_genes: int, beyond_color: bool) -> pd.DataFrame:
    """One row per gene: rule, log of the base rate, and coefficients on the standardized morphology."""
    kinds = [list(_RULES)[g % len(_RULES)] for g in range(n_genes)]
    names = [f"{kind}{g // len(_RULES) + 1}" for g, kind in enumerate(kinds)]
    more = [(f"{kind}{g + 1}", kind) for g in range(n_genes // len(_RULES)) for kind in _BEYOND] if beyond_color else []
    kinds, n_genes = [*kinds, *(kind for _, kind in more)], n_genes + len(more)
    names += [name for name, _ in more]
    rules = pd.DataFrame({"rule": [(_RULES | _BEYOND)[kind] for kind in kinds]}, index=pd.Index(names, dtype=object))
    # housekeeping genes make most of the library: otherwise a gene's share would follow what the others do
    rules["base"] = rng.normal(0, 0.6, n_genes) + 4.0 * (rules["rule"] == "constant")
    strength = rng.uniform(0.5, 1.0, n_genes)
    for part in (*MORPHOLOGY, *_BEYOND.values()) if beyond_color else MORPHOLOGY:
        rules[f"coef_{part}"] = strength * (rules["rule"] == part)
    return rules


def _spots(tissue: Tissue, mpp: float, most: int | None) -> pd.DataFrame:
    """Visium-like spots that lie on tissue by more than half, with the morphology in their discs."""
    size_px = len(tissue.tissue)
    rows, cols = np.mgrid[: int(size_px * mpp / 86) + 1, : int(size_px * mpp / 50) + 1].reshape(2, -1)
    array = np.column_stack([rows, cols])[(rows + cols) % 2 == 0]
    xy = lattice_um(array, "visium") / mpp
    spots = pd.DataFrame({"px": xy[:, 0], "py": xy[:, 1], "array_row": array[:, 0], "array_col": array[:, 1]})
    spots = spots[spots[["px", "py"]].lt(size_px).all(axis=1)]
    spots = spots[_fraction(tissue.tissue, spots, mpp) > 0.5]
    if most is not None:
        away = np.hypot(spots["px"] - size_px / 2, spots["py"] - size_px / 2)
        spots = spots.loc[away.nsmallest(most).index.sort_values()]
    spots.index = [f"{col}x{row}" for row, col in spots[["array_row", "array_col"]].to_numpy()]
    masks = (tissue.nuclei > 0, tissue.glands, tissue.stroma, tissue.lymphocytes)
    fractions = {name: _fraction(mask, spots, mpp) for name, mask in zip(MORPHOLOGY, masks, strict=True)}
    return spots.assign(measured=True, **fractions)


def beyond(tissue: Tissue, spots: pd.DataFrame, mpp: float) -> dict[str, np.ndarray]:
    """What the color of spots does not tell: nuclei per disc, outlines of nuclei (µm per µm²), nuclei around."""
    middles = center_of_mass(tissue.nuclei > 0, tissue.nuclei, np.unique(tissue.nuclei)[1:])
    near = cKDTree(middles).query_ball_point(spots[["py", "px"]].to_numpy(), SPOT_UM / 2 / mpp, return_length=True)
    steps = [np.diff(tissue.nuclei, axis=axis, prepend=0) != 0 for axis in (0, 1)]
    outline = _fraction(np.sum(steps, axis=0), spots, mpp) * np.pi / 4 / mpp  # Crofton: steps are 4 / pi too long
    ring = _fraction(tissue.nuclei > 0, spots, mpp, *RING_UM)
    return {"density": near, "outline": outline, "surroundings": ring}


def _fraction(
    mask: np.ndarray, spots: pd.DataFrame, mpp: float, low_um: float = 0.0, high_um: float = SPOT_UM / 2
) -> np.ndarray:
    """Share of each spot's disc, or of a ring around its middle, that a mask covers."""
    half = int(np.ceil(high_um / mpp))
    line = np.arange(-half, half + 1) * mpp
    away = np.hypot(*np.meshgrid(line, line))
    disc = (away <= high_um) & (away >= low_um)
    padded = np.pad(mask, half)
    at = spots[["py", "px"]].to_numpy().astype(int)
    return np.array([padded[y : y + 2 * half + 1, x : x + 2 * half + 1][disc].mean() for y, x in at])


def _log_share(rng: np.random.Generator, spots: pd.DataFrame, rules: pd.DataFrame) -> np.ndarray:
    fractions, parts = spots[list(MORPHOLOGY)].to_numpy(), list(MORPHOLOGY)
    z = (fractions - _CENTER) / _SPREAD
    if "coef_density" in rules:
        parts += _BEYOND.values()
        expected = np.column_stack([np.ones(len(spots)), fractions]) @ _EXPECTED.T
        z = np.hstack([z, (spots[list(_BEYOND.values())].to_numpy() - expected) / _REST])
    log_rate = rules["base"].to_numpy() + z @ rules[[f"coef_{part}" for part in parts]].to_numpy().T
    independent = (rules["rule"] == "independent").to_numpy()
    log_rate[:, independent] += rng.normal(0, 0.7, (len(spots), independent.sum()))
    return log_rate - np.logaddexp.reduce(log_rate, axis=1, keepdims=True)


def _counts(rng: np.random.Generator, log_share: np.ndarray, nuclei: np.ndarray, from_cells: bool) -> csr_matrix:
    """Negative binomial counts `(n, genes)`, as a gamma mixture of Poissons."""
    noise = rng.normal(0, 1, len(nuclei))
    log_depth = 0.5 * (nuclei - _CENTER[0]) / _SPREAD[0] + 0.15 * noise if from_cells else 0.4 * noise
    mean = _DEPTH * np.exp(log_depth)[:, None] * np.exp(log_share)
    return csr_matrix(rng.poisson(rng.gamma(_DISPERSION, mean / _DISPERSION)), dtype=np.float32)
