"""Benchmarks by name: how sections are split, what is scored and how, and what the numbers can be compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.bench._leave_out import leave_one_out
from sq_imputer.bench._outcome import Case
from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.section.nearby import scored

if TYPE_CHECKING:
    from sq_imputer.section.slide import Slide

TASKS = ("models", "zero_shot", "expression", "retrieval", "batch")
GALLERIES = ("batch:64", "section", "all")


@dataclass(frozen=True)
class Protocol:
    """A benchmark by name.

    Parameters
    ----------
    name
        Its name.
    split
        `"patient"`: every section is tested by a fit on those of other patients. `"section"`: on all others, patients
        shared and marked. `"replicate"`: on the others of its patient alone. `"given"`: as the config says.
    tasks
        What is scored: `"models"` (registered predictors), `"zero_shot"` (those that can be asked for genes that they
        were not fitted on, :func:`sq_imputer.bench.leave_genes_out`), `"expression"` (a linear probe on encoders),
        `"retrieval"` (pairs of image and expression), `"batch"` (what features say of the section).
    n_genes
        Size of the panel, chosen on the training sections of each case.
    probe
        Of the task of expression.
    galleries
        Of the task of retrieval.
    compares
        What its numbers can be compared with, and what not.
    """

    name: str
    split: str
    tasks: tuple[str, ...]
    n_genes: int
    probe: str
    galleries: tuple[str, ...]
    compares: str


_ALL = (
    Protocol(
        "hescape",
        "given",
        ("retrieval", "expression", "batch"),
        50,
        "ridge-pca128",
        GALLERIES,
        "Recall with gallery batch:64 has the form of the published numbers (arXiv:2508.01490), whose data, panels and "
        "encoders it needs to be compared with them; recall over a section or all rows is another number. Panels are "
        "chosen on the training sections here, published ones are fixed lists.",
    ),
    Protocol(
        "hest",
        "patient",
        ("expression",),
        50,
        "ridge-pca256",
        GALLERIES,
        "The probe of HEST-bench (arXiv:2406.16192): 256 components, penalty 100 / (components x genes). Comparable "
        "with its numbers on its data, folds and gene lists only; a probe without components ranks encoders otherwise.",
    ),
    Protocol(
        "leave_section_out",
        "section",
        ("models",),
        250,
        "ridge-cv",
        GALLERIES,
        "Sections of a patient may be on both sides (column shares_patient): then a score of replicates, not of new "
        "patients.",
    ),
    Protocol(
        "leave_patient_out",
        "patient",
        ("models",),
        250,
        "ridge-cv",
        GALLERIES,
        "New patients. Not to be put beside scores of replicates.",
    ),
    Protocol(
        "replicate",
        "replicate",
        ("models",),
        250,
        "ridge-cv",
        GALLERIES,
        "Neighboring sections of one patient: the upper end of what is possible, not a score of new patients.",
    ),
    Protocol(
        "transfer",
        "given",
        ("models",),
        250,
        "ridge-cv",
        GALLERIES,
        "Fitted on some sections, tested on named ones of another scanner, stain or patient.",
    ),
    Protocol(
        "zero_shot",
        "section",
        ("zero_shot",),
        250,
        "ridge-cv",
        GALLERIES,
        "Genes and sections that were both left out, beside permuted knowledge, the nearest genes, the mean of seen "
        "genes and a model of the measured genes. What is said of such genes is ordinal: correlations alone. Not to be "
        "put beside scores of genes that were measured.",
    ),
)
PROTOCOLS = {one.name: one for one in _ALL}


def protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises
    ------
    MissingKey
        If there is none.

    Examples
    --------
    >>> what = sqi.bench.protocol("hest").compares
    """
    if name not in PROTOCOLS:
        raise MissingKey(f"no protocol '{name}'; there are {listed(PROTOCOLS, 9)}.")
    return PROTOCOLS[name]


@dataclass(frozen=True, eq=False)
class Fold:
    """Cases with the same training sections, and what the tasks on pairs need beside them.

    Parameters
    ----------
    cases
        One, or those of all sections that a split tests.
    validation
        Sections by which a contrast ends its training; none if there are none to spare.
    latents
        Vectors of another encoder of expression, by section; none if no contrast takes them.
    """

    cases: tuple[Case, ...]
    validation: tuple[Slide, ...] = ()
    latents: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What is tested."""
        return ", ".join(case.name for case in self.cases)


def folds_of(
    how: Protocol, slides: Sequence[Slide], splits: Sequence[Mapping[str, Sequence[str]]] | None
) -> list[Fold]:
    """The cases of a protocol, of each split those that it tests together.

    Parameters
    ----------
    how
        The protocol.
    slides
        All sections.
    splits
        Names of sections by `"train"`, `"val"` and `"test"`, for `"given"`; each section is tested once at most.

    Raises
    ------
    BadInput
        If a split is needed and missing, or is given where none is needed; or names a section that is not there.
    """
    if (how.split == "given") != bool(splits):
        need = "needs a split: {train: [...], test: [...]}" if how.split == "given" else f"splits by {how.split}"
        raise BadInput(f"protocol '{how.name}' {need}. {'Add' if how.split == 'given' else 'Leave out'} split.")
    if splits:
        folds = [_given(slides, split) for split in splits]
        tested = [case.name for fold in folds for case in fold.cases]
        if len(set(tested)) < len(tested):
            raise BadInput(f"splits test {listed(tested, 12)}; expected each section once. Make them two benchmarks.")
        return folds
    if how.split == "replicate":
        groups = dict.fromkeys(s.group for s in slides)
        several = [[s for s in slides if s.group == group] for group in groups]
        cases = [c for part in several if len(part) > 1 for c in leave_one_out(part, share_patient=True)]
    else:
        cases = leave_one_out(slides, share_patient=how.split == "section")
    if not cases:
        raise BadInput(f"protocol '{how.name}' finds no two sections of one patient; take leave_patient_out.")
    return [Fold((case,)) for case in cases]


def _given(slides: Sequence[Slide], split: Mapping[str, Sequence[str]]) -> Fold:
    from sq_imputer.bench._splits import PARTS, check_apart

    known = {slide.section: slide for slide in slides}
    strange = [part for part in split if part not in PARTS] + [n for p in split.values() for n in p if n not in known]
    if strange:
        raise BadInput(f"split names {listed(strange)}; parts are {listed(PARTS)}, sections {listed(known, 12)}.")
    check_apart({part: list(names) for part, names in split.items()})
    train, validation, test = (tuple(known[n] for n in split.get(part, ())) for part in PARTS)
    if not train or not test:
        raise BadInput("split has no section to train on, or none to test. Name some of both.")
    patients = {s.group for s in train}
    cases = [Case(s.section, train, s, np.flatnonzero(scored(s)), s.group in patients) for s in test]
    return Fold(tuple(cases), validation)
