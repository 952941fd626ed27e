"""What a fit is given: whether it goes together and the model takes it, and what its provenance says."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version

from sq_imputer.contract import Needs, Source, Target
from sq_imputer.errors import BadInput, listed
from sq_imputer.predictor.folder import CONTROL
from sq_imputer.predictor.registry import ModelCard, get_model, list_models
from sq_imputer.predictor.train import Plan


def target_of(source: Source) -> Target:
    """What a source is measured for: genes, unless it says otherwise."""
    return getattr(source, "target", Target())


def check_takes(card: ModelCard, target: Target) -> None:
    """Check that a model takes a kind of target; the error names those that do."""
    if target.kind in card.targets:
        return
    cards = [get_model(name).card for name in list_models()]
    others = listed((one.name for one in cards if target.kind in one.targets), 20)
    raise BadInput(
        f"'{card.name}' predicts {listed(card.targets)}, and target '{target.where}' is of kind '{target.kind}'. "
        f"Models that take it: {others}."
    )


def check_sources(sources: Sequence[Source], card: ModelCard) -> None:
    """Check that there is something to fit on, of one target that the model takes."""
    if not sources:
        raise BadInput("no sources to fit on; expected at least one section.")
    for source in sources:
        if source.expression is None:
            raise BadInput(f"section '{source.section}' has no targets; call .with_genes(genes) first.")
        kinds = [target_of(one).told for one in (source, sources[0])]
        if (source.genes, source.unit) != (sources[0].genes, sources[0].unit) or kinds[0] != kinds[1]:
            raise BadInput(
                f"sections '{sources[0].section}' and '{source.section}' have different genes, targets or units "
                f"({sources[0].unit}, "
                f"{source.unit}); give both the same by .with_genes(genes, unit)."
            )
    check_takes(card, target_of(sources[0]))
    strange = [gene for gene in sources[0].genes if CONTROL.search(gene)]
    if strange:
        raise BadInput(f"{len(strange)} genes have control characters in their names: {listed(strange)}. Rename them.")
    n_rows = sum(int(source.measured.sum()) for source in sources)
    if n_rows < 2:
        names = listed(source.section for source in sources)
        raise BadInput(f"sections {names} have {n_rows} measured rows; a fit needs 2 or more. Add sections.")


def check_reads(
    card: ModelCard,
    needs: Needs,
    sources: Sequence[Source],
    sizes: Mapping[str, int] | None = None,
    fitted: Mapping | None = None,
) -> None:
    """Check that a model of DNA is given windows of DNA, all with the same tracks, and a model of images is not.

    `sizes` and the provenance `fitted` are those of a fit; those of the first source if left out.
    """
    told = fitted.get("windows") if fitted else None  # read from a file, it may be anything
    reads = told.get("reads") if isinstance(told, Mapping) else getattr(sources[0], "reads", None)
    for source in sources:
        found = getattr(source, "sizes", None)
        if (found is None) == needs.of_genes:
            kind, rows = ("DNA", "no windows of it") if needs.of_genes else ("images", "windows of DNA")
            fix = "Give it sq_imputer.GeneWindows." if needs.of_genes else "Take a model of the gene axis."
            raise BadInput(f"'{card.name}' reads {kind}, and the rows of '{source.section}' are {rows}. {fix}")
        sizes = found if sizes is None else sizes
        odd = [f"{name} ({n}, expected {sizes[name]})" for name, n in (found or {}).items() if n != sizes[name]]
        if odd:
            raise BadInput(
                f"windows of '{source.section}' have other numbers of {listed(odd)}. Make them with the same tracks= "
                "and extra=."
            )
        mine = getattr(source, "reads", None)
        if mine and reads and isinstance(reads, list | tuple) and list(mine) != list(reads):
            raise BadInput(
                f"windows of '{source.section}' are read as {listed(mine)}, and those of the fit as {listed(reads)}. "
                "Make them with the same strand=, tracks= in the same order, and normalize=."
            )


def provenance(sources: Sequence[Source], plan: Plan) -> dict:
    """Where a model was fitted, how, and with which versions."""
    packages = ("sq-imputer", "torch", "spatialdata", "anndata")
    return {
        "sections": [source.section for source in sources],
        "groups": [source.group for source in sources],
        "fingerprints": [source.fingerprint for source in sources],
        "rows": [int(source.measured.sum()) for source in sources],
        "plan": asdict(plan),
        **_of_genes(sources),
        "versions": {name: version(name) for name in packages},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _of_genes(sources: Sequence[Source]) -> dict:
    """Where rows are genes: what was read of them, and which of them were trained on."""
    if not hasattr(sources[0], "sizes"):
        return {}
    return {"windows": sources[0].provenance, "row_names": [list(s.names[s.measured]) for s in sources]}
