"""What is predicted from the image: a matrix with names, a kind, a unit and a link. Genes are the default."""

from __future__ import annotations

from dataclasses import dataclass

from sq_imputer.errors import BadInput, listed

GENES, NUMBERS, CLASSES, COMPOSITION = "genes", "numbers", "classes", "composition"
KINDS = (GENES, NUMBERS, CLASSES, COMPOSITION)
LEGACY, LEGACY_UNIT = "triplex_legacy", "log10_cp10k_panel"
UNITS = {NUMBERS: "value", CLASSES: "probability", COMPOSITION: "proportion"}  # where none is said
SLOTS = ("obs", "obsm", "table")


@dataclass(frozen=True)
class Target:
    """What is predicted, and where it is measured.

    Parameters
    ----------
    where
        `"genes"`: the counts of the table. `"triplex_legacy"`: the same as the published TRIPLEX has them, in
        `"log10_cp10k_panel"`, and each training row is taught the mean of itself and its neighbors on the lattice
        (what is scored is never smoothed). `"obs:NAME"`: a column of its `obs`; numbers, or categories, of which the
        probability of each is predicted. `"obsm:NAME"`: a matrix, or a DataFrame, in its `obsm`. `"table:NAME"`:
        another table that annotates the same shapes, such as proteins.
    kind
        `"genes"`, `"numbers"`, `"classes"` or `"composition"` (proportions: not negative, of sum 1). Left out:
        classes of a column of categories or text, else numbers.
    names
        Names of the columns, found when it is read. Those of an array are numbered; a DataFrame has its own.
    unit
        Unit of the numbers; to be said of a table.
    """

    where: str = GENES
    kind: str = ""
    names: tuple[str, ...] = ()
    unit: str = ""

    def __post_init__(self) -> None:
        slot, _, name = str(self.where).partition(":")
        if not isinstance(self.where, str) or not (self.is_genes or (slot in SLOTS and name)):
            raise BadInput(
                f"target is {self.where!r}; expected 'genes', '{LEGACY}', 'obs:NAME', 'obsm:NAME' or 'table:NAME', "
                "such as 'obs:label'."
            )
        if self.kind and (self.kind not in KINDS or (self.kind == GENES) != self.is_genes):
            raise BadInput(f"kind of target '{self.where}' is {self.kind!r}; expected one of {listed(KINDS[1:])}.")
        if self.is_genes:
            object.__setattr__(self, "kind", GENES)
        if self.smoothed:
            if self.unit not in ("", LEGACY_UNIT):
                raise BadInput(f"unit is '{self.unit}'; that of target '{LEGACY}' is '{LEGACY_UNIT}'. Leave out unit=.")
            object.__setattr__(self, "unit", LEGACY_UNIT)
        object.__setattr__(self, "names", tuple(self.names))

    @classmethod
    def of(cls, target: Target | str | None) -> Target:
        """The target that a verb was given, by its name, or genes."""
        if not isinstance(target, cls | str | None):
            raise BadInput(f"target is a {type(target).__name__}; expected text such as 'obs:label', or a Target.")
        return target if isinstance(target, cls) else cls(target or GENES)

    @property
    def is_genes(self) -> bool:
        """Whether it is the expression of genes."""
        return self.where in (GENES, LEGACY)

    @property
    def smoothed(self) -> bool:
        """Whether training rows are taught the mean of themselves and their neighbors on the lattice."""
        return self.where == LEGACY

    @property
    def slot(self) -> str:
        """`"obs"`, `"obsm"` or `"table"`; of genes the target itself."""
        return self.where.partition(":")[0]

    @property
    def name(self) -> str:
        """What follows the slot."""
        return self.where.partition(":")[2]

    @property
    def link(self) -> str:
        """What makes a prediction of scores: `"identity"`, or `"softmax"` for what sums to 1."""
        return "softmax" if self.kind in (CLASSES, COMPOSITION) else "identity"

    @property
    def key(self) -> str:
        """The table that a prediction goes to, if no other is named."""
        return "imputed" if self.where == GENES else f"imputed_{self.name or self.where}"

    @property
    def told(self) -> dict[str, str]:
        """What a folder or the provenance says of it."""
        return {"where": self.where, "kind": self.kind}
