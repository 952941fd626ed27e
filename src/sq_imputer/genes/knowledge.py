"""What is known of genes, as vectors: of their descriptions, gene sets, a reference of cells, or the user's own.

The rows of a section are told by its image; a gene is told by what is known of it. Genes are found by symbol or Ensembl
id, by either's synonyms where these are known, and never by a guess: a name that could mean two genes finds none.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, check_number, listed
from sq_imputer.genes import annotations, reference, text
from sq_imputer.genes.names import alike, unversioned
from sq_imputer.untrusted import read_arrays

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame


class Aligned(NamedTuple):
    """Vectors `(G, D)` of genes in the order asked for, 0 where nothing is known; `known` `(G,)` says where it is."""

    vectors: np.ndarray
    known: np.ndarray


@dataclass(frozen=True, eq=False)
class GeneKnowledge:
    """Genes × vectors, and where they come from.

    Made by one of the `from_` methods, :meth:`lexical`, or from arrays.

    Parameters
    ----------
    names
        Names of the genes: symbols or Ensembl ids.
    vectors
        `(n, D)` finite numbers.
    name
        What the knowledge is called, such as `"go"`; provenance and messages name it.
    source
        Where it comes from, in words.
    aliases
        Other names of genes: the name that each stands for. Applied to names here and to those asked for.
    ignore_case
        Find names that are written otherwise as well, such as human gene sets for genes of the mouse (`Actb`, `ACTB`):
        orthologs mostly share a name, not always.
    """

    names: tuple[str, ...]
    vectors: np.ndarray
    name: str = "own"
    source: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict, repr=False)
    ignore_case: bool = False

    def __post_init__(self) -> None:
        names = tuple(map(str, self.names))
        vectors = np.ascontiguousarray(self.vectors, dtype=np.float32)
        vectors = vectors.copy() if vectors.flags.writeable else vectors  # nobody changes it, and copies share it
        vectors.flags.writeable = False
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "vectors", vectors)
        if vectors.ndim != 2 or len(vectors) != len(names) or not vectors.size:
            raise BadInput(
                f"knowledge '{self.name}' has vectors {vectors.shape} of {len(names)} genes; expected (n, D)."
            )
        if not np.isfinite(vectors).all():
            odd = [names[row] for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1))]
            raise BadInput(f"knowledge '{self.name}' is NaN or infinite of {listed(odd)}; leave these genes out.")
        if len(set(names)) < len(names):
            twice = sorted({gene for gene in names if names.count(gene) > 1}) if len(names) < 10**4 else ()
            raise BadInput(f"knowledge '{self.name}' has genes twice: {listed(twice)}; expected each once. Drop one.")

    def __repr__(self) -> str:
        """Name, size and source."""
        return f"GeneKnowledge '{self.name}' of {len(self)} genes, {self.width} wide, from {self.source or 'arrays'}"

    def __len__(self) -> int:
        return len(self.names)

    def __deepcopy__(self, memo: dict) -> GeneKnowledge:
        """Itself: it never changes, and models that share it are copied."""
        return self

    @property
    def width(self) -> int:
        """Length of a vector."""
        return self.vectors.shape[1]

    @cached_property
    def sha256(self) -> str:
        """Hash of names and vectors."""
        content = "\n".join(self.names).encode() + b"\0" + self.vectors.tobytes()
        return hashlib.sha256(content).hexdigest()

    @property
    def provenance(self) -> dict:
        """What a fitted model keeps of it beside the vectors."""
        said = {"name": self.name, "source": self.source, "genes": len(self), "width": self.width}
        return said | {"sha256": self.sha256}

    # Finding genes --------------------------------------------------------------------------------

    @cached_property
    def _rows(self) -> dict[str, int]:
        """The row of every name; of what stands for several rows, none."""
        rows = {name: row for row, name in enumerate(self.names)}
        for others in (unversioned, self._standing, self._folded):
            claims: dict[str, set[int]] = {}
            for row, name in enumerate(self.names):
                claims.setdefault(others(name), set()).add(row)
            rows |= {name: min(found) for name, found in claims.items() if len(found) == 1 and name not in rows}
        return rows

    def _standing(self, name: str) -> str:
        name = unversioned(name)
        return self.aliases.get(name, name)

    def _folded(self, name: str) -> str:
        return self._standing(name).casefold() if self.ignore_case else self._standing(name)

    def rows(self, genes: Sequence[str]) -> list[int | None]:
        """The row of every gene, None where nothing is known."""
        ways = (str, unversioned, self._standing, self._folded)
        return [next((self._rows[way(g)] for way in ways if way(g) in self._rows), None) for g in genes]

    def aligned(self, genes: Sequence[str], *, quiet: bool = False) -> Aligned:
        """Vectors of some genes, in this order.

        Parameters
        ----------
        genes
            Symbols or Ensembl ids, with or without their version.
        quiet
            Say nothing of genes without knowledge; else a warning counts and names them.

        Raises
        ------
        BadInput
            If nothing is known of any of them.
        """
        rows = self.rows(genes)
        known = np.array([row is not None for row in rows], dtype=bool)
        missing = [gene for gene, there in zip(genes, known, strict=True) if not there]
        if missing and (not quiet or not known.any()):
            told = f"'{self.name}' knows nothing of {len(missing)} of {len(rows)} genes: {listed(missing)}"
            same = () if self.ignore_case else alike(missing, self.names)
            hint = f" {len(same)} match but for case: .ignoring_case() takes these." if same else ""
            if not known.any():
                raise BadInput(f"{told}; it has names such as {listed(self.names[:3], 3)}.{hint} Pass other knowledge.")
            warnings.warn(f"{told}. Their vectors are 0.{hint}", UserWarning, stacklevel=2)
        vectors = np.zeros((len(rows), self.width), dtype=np.float32)
        vectors[known] = self.vectors[[row for row in rows if row is not None]]
        return Aligned(vectors, known)

    # Changing it ----------------------------------------------------------------------------------

    def ignoring_case(self) -> GeneKnowledge:
        """The same, but names are found whatever their case."""
        return replace(self, ignore_case=True)

    def with_aliases(self, aliases: Mapping[str, str] | str | Path) -> GeneKnowledge:
        """The same with synonyms: a mapping of other names to names, or an NCBI gene_info file."""
        if not isinstance(aliases, Mapping):
            aliases = annotations.read_gene_info(aliases).aliases
        return replace(self, aliases={**self.aliases, **aliases})

    def only(self, genes: Sequence[str]) -> GeneKnowledge:
        """Knowledge of these genes alone, called as they are here, in this order; unknown ones are left out."""
        found = self.aligned(genes)
        names = [gene for gene, there in zip(genes, found.known, strict=True) if there]
        return replace(self, names=tuple(names), vectors=found.vectors[found.known])

    def permuted(self, seed: int = 0) -> GeneKnowledge:
        """The control: the same vectors, of other genes. Limit it to the genes that matter first (:meth:`only`)."""
        order = np.random.default_rng(seed).permutation(len(self))
        return replace(
            self, vectors=self.vectors[order], name=f"{self.name}, permuted", source=f"{self.source} (shuffled)"
        )

    @classmethod
    def concat(cls, parts: Sequence[GeneKnowledge], *, name: str = "") -> GeneKnowledge:
        """Several kinds of knowledge side by side; where one of them knows nothing of a gene, its part is 0.

        Each is divided by its root mean square length, so that none outweighs the others.
        """
        if not parts:
            raise BadInput("parts is empty; expected a list of one GeneKnowledge or more.")
        aliases = {alias: gene for part in reversed(parts) for alias, gene in part.aliases.items()}
        ignore_case = any(part.ignore_case for part in parts)
        parts = [replace(part, aliases=aliases, ignore_case=ignore_case) for part in parts]
        names = parts[0].names
        for part in parts[1:]:
            rows = replace(part, names=names, vectors=np.ones((len(names), 1))).rows(part.names)
            names += tuple(name for name, row in zip(part.names, rows, strict=True) if row is None)
        vectors = []
        for part in parts:
            scale = np.sqrt(np.mean(np.sum(part.vectors.astype(np.float64) ** 2, axis=1))) or 1.0
            vectors.append(part.aligned(names, quiet=True).vectors / scale)
        title, source = (joint.join(getattr(p, key) for p in parts) for joint, key in (("+", "name"), ("; ", "source")))
        return cls(names, np.concatenate(vectors, axis=1), name or title, source, aliases, ignore_case)

    # Making it ------------------------------------------------------------------------------------

    @classmethod
    def from_frame(cls, frame: DataFrame, *, name: str = "own", source: str = "a DataFrame") -> GeneKnowledge:
        """Vectors of a DataFrame: genes in the index, numbers in the columns."""
        odd = [column for column in frame.columns if frame[column].dtype.kind not in "fiub"]
        if odd:
            raise BadInput(f"columns {listed(odd)} hold no numbers; drop them, or make names the index (set_index).")
        return cls(tuple(frame.index), frame.to_numpy(dtype=np.float32), name, source)

    @classmethod
    def from_npz(
        cls, path: str | Path, *, names: str = "names", vectors: str = "vectors", name: str = "own"
    ) -> GeneKnowledge:
        """Vectors of a file of numpy: an array of names (text, not objects) and one of vectors."""
        found = read_arrays(path, (names, vectors))
        if found[names].dtype.kind != "U" or found[vectors].dtype.kind not in "fiu":
            kinds = f"{found[names].dtype} and {found[vectors].dtype}"
            raise BadInput(f"'{names}' and '{vectors}' in '{path}' are {kinds}; expected text and numbers.")
        return cls(tuple(found[names].ravel().tolist()), found[vectors], name, f"'{Path(path).name}'")

    @classmethod
    def from_anndata(
        cls, adata: AnnData, key: str | None = None, *, layer: str | None = None, n_components: int = 50, seed: int = 0
    ) -> GeneKnowledge:
        """Vectors in `varm`, or the loadings of a PCA of a reference of cells: genes that vary together are alike.

        Parameters
        ----------
        adata
            With genes in `var_names`, and ids in `var["gene_ids"]` if there are any.
        key
            In `varm`; the loadings are computed if left out. Genes whose row is NaN throughout, as those without a
            window have it (:func:`sq_imputer.tl.sequence_prior`), are left out.
        layer
            What the PCA is made of; `X` if left out. Counts become log1p of 10,000 per cell, other numbers stay.
        n_components
            Of the PCA.
        seed
            Where its iteration starts.

        Raises
        ------
        MissingKey
            If there is no such key or layer.
        """
        aliases = reference.ids_of(adata)
        if key is not None:
            if key not in adata.varm:
                raise MissingKey(
                    f"no varm '{key}'; the AnnData has {listed(adata.varm)}. Pass key=, or None for a PCA."
                )
            names, vectors = reference.told_of(adata, key)
            return cls(names, vectors, key, f"varm '{key}'", aliases)
        there, loadings, how = reference.loadings(adata, layer, n_components, seed)
        return cls(tuple(adata.var_names[there]), loadings, "reference", how, aliases)

    @classmethod
    def from_descriptions(
        cls,
        descriptions: Mapping[str, str] | str | Path,
        encode: text.TextEncoder | str | None = None,
        *,
        name: str = "",
    ) -> GeneKnowledge:
        """Vectors of texts.

        Parameters
        ----------
        descriptions
            The text of every gene, or a file of them: lines of a name, a tab, a text.
        encode
            A function of a list of texts that gives `(n, D)` vectors, the name or folder of a model of transformers
            (extra `text`), or, if left out, spelling alone (:func:`sq_imputer.genes.text.lexical`).
        """
        if not isinstance(descriptions, Mapping):
            descriptions = annotations.read_descriptions(descriptions)
        annotations.check_texts(descriptions)
        said = encode if isinstance(encode, str) else getattr(encode, "__name__", type(encode).__name__)
        how = text.LEXICAL if encode is None else said
        vectors = text.encoded(list(descriptions.values()), encode)
        return cls(tuple(descriptions), vectors, name or how, f"descriptions by {how}")

    @classmethod
    def from_gene_info(
        cls, path: str | Path, encode: text.TextEncoder | str | None = None, *, name: str = "names"
    ) -> GeneKnowledge:
        """Vectors of the full names of genes in NCBI's gene_info, whose synonyms and Ensembl ids are known as well."""
        info = annotations.read_gene_info(path)
        made = cls.from_descriptions(info.descriptions, encode, name=name)
        return replace(made, source=f"'{Path(path).name}', {made.source}", aliases=info.aliases)

    @classmethod
    def from_gene_sets(
        cls,
        sets: Mapping[str, Iterable[str]] | str | Path | Sequence[str | Path],
        *,
        n_components: int = 128,
        fewest: int = 5,
        most: int = 500,
        name: str = "gene sets",
        seed: int = 0,
    ) -> GeneKnowledge:
        """Vectors of the sets that genes are in: a truncated SVD of genes × sets, in which rare sets weigh more.

        Parameters
        ----------
        sets
            Genes of every set, or GMT files, such as those of GO and MSigDB.
        n_components
            Width of the vectors; fewer where there are fewer sets.
        fewest, most
            Sets with fewer or more genes are left out: the first say nothing of others, the last little.
        seed
            Where the iteration starts.
        """
        for argument, value in (("n_components", n_components), ("fewest", fewest), ("most", most)):
            check_number(argument, value, 1, whole=True)
        files = "" if isinstance(sets, Mapping) else sets
        sets = sets if isinstance(sets, Mapping) else annotations.read_gmt(sets)
        genes, vectors, n_sets = reference.of_sets(sets, n_components, fewest, most, seed)
        where = (
            [Path(p).name for p in ([files] if isinstance(files, str | Path) else files)] if files else ["a mapping"]
        )
        return cls(genes, vectors, name, f"{n_sets} gene sets of {listed(where)}")

    @classmethod
    def lexical(cls, genes: Sequence[str]) -> GeneKnowledge:
        """The last resort: how genes are spelled. A vector depends on its own name alone."""
        genes = list(dict.fromkeys(genes))
        vectors = text.lexical(genes, rare=False)
        return cls(tuple(genes), vectors, text.LEXICAL, "the spelling of their names")
