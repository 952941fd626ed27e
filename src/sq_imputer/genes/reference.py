"""Vectors of genes by linear algebra: loadings of a reference of cells, and the gene sets that genes are in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix, issparse

from sq_imputer.errors import BadInput, MissingKey, check_number, listed
from sq_imputer.genes.names import unversioned
from sq_imputer.genes.text import unit_length

if TYPE_CHECKING:
    from anndata import AnnData

IDS = "gene_ids"  # column of `var` that scanpy's readers fill


def ids_of(adata: AnnData) -> dict[str, str]:
    """The name of every Ensembl id that the table has."""
    if IDS not in adata.var:
        return {}
    return {unversioned(str(found)): name for name, found in zip(adata.var_names, adata.var[IDS], strict=True)}


def told_of(adata: AnnData, key: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Genes that a varm says something of, and their vectors: a row that is NaN throughout says nothing."""
    vectors = np.asarray(adata.varm[key], dtype=np.float32)
    known = ~np.isnan(vectors).reshape(len(vectors), -1).all(axis=1)
    if not known.any():
        raise BadInput(f"varm '{key}' is NaN of all {len(vectors)} genes. Pass key= of another.")
    return tuple(adata.var_names[known]), vectors[known]


def loadings(adata: AnnData, layer: str | None, n_components: int, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Genes that vary `(G,)` bool; their loadings, scaled by the spread of the components, of length 1; and how."""
    from sklearn.decomposition import PCA

    check_number("n_components", n_components, 1, whole=True)
    if layer is not None and layer not in adata.layers:
        raise MissingKey(f"no layer '{layer}'; the AnnData has {listed(adata.layers)}. Pass layer=, or None for X.")
    values = adata.X if layer is None else adata.layers[layer]
    if values is None:
        raise MissingKey(f"the AnnData has no X; its layers are {listed(adata.layers)}. Pass layer=.")
    values = csr_matrix(values) if not issparse(values) else values.tocsr()
    if not np.isfinite(values.data).all():
        raise BadInput("the AnnData holds NaN or infinite values; drop or fill them first.")
    counts = bool((values.data >= 0).all() and (values.data == np.round(values.data)).all())
    if counts:
        depth = np.asarray(values.sum(axis=1), dtype=np.float64)
        values = csr_matrix(values.multiply(1e4 / np.maximum(depth, 1))).log1p()  # as units.to_unit, and sparse
    n_components = min(n_components, min(values.shape) - 1)
    if n_components < 1:
        raise BadInput(f"the AnnData has {values.shape} cells and genes; a PCA needs more. Pass key= of varm instead.")
    pca = PCA(n_components, svd_solver="arpack", random_state=seed).fit(values.astype(np.float64))
    vectors = (pca.components_ * np.sqrt(pca.explained_variance_)[:, None]).T
    there = np.linalg.norm(vectors, axis=1) > 1e-9 * np.linalg.norm(vectors)
    unit = "log1p CP10k of counts" if counts else "values as they are"
    return there, unit_length(vectors[there]), f"PCA loadings of {adata.n_obs} cells ({unit})"


def of_sets(
    sets: Mapping[str, Iterable[str]], n_components: int, fewest: int, most: int, seed: int
) -> tuple[tuple[str, ...], np.ndarray, int]:
    """Genes, their vectors of length 1 by a truncated SVD of genes × sets, and how many sets were used."""
    from sklearn.decomposition import TruncatedSVD

    kept = [sorted(found) for found in map(set, sets.values()) if fewest <= len(found) <= most]
    if len(kept) < 2:
        raise BadInput(f"{len(kept)} of {len(sets)} gene sets have {fewest} to {most} genes; two or more are needed.")
    genes = sorted({gene for members in kept for gene in members})
    row = {gene: number for number, gene in enumerate(genes)}
    rows = [row[gene] for members in kept for gene in members]
    columns = np.repeat(np.arange(len(kept)), [len(members) for members in kept])
    rarity = np.log(len(genes) / np.array([len(members) for members in kept]))
    weighted = csr_matrix((np.maximum(rarity, 1e-3)[columns], (rows, columns)), shape=(len(genes), len(kept)))
    n_components = min(n_components, min(weighted.shape) - 1)
    start = TruncatedSVD(n_components, algorithm="arpack", random_state=seed)
    vectors = start.fit_transform(weighted)
    there = np.linalg.norm(vectors, axis=1) > 1e-6 * np.abs(vectors).max()  # of no leading component: nothing is told
    names = tuple(gene for gene, known in zip(genes, there, strict=True) if known)
    return names, unit_length(vectors[there]), len(kept)
