"""Which encoders made the features that a model was fitted on, and whether those of a section are of the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sq_imputer.contract import Model, Needs, Source
from sq_imputer.encoders._shelf import same, told
from sq_imputer.errors import BadInput


def of_sources(sources: Sequence[Source], needs: Needs, device: str) -> dict[str, dict]:
    """Provenance of the encoders of all sources, by name; their features are computed if need be.

    Raises
    ------
    BadInput
        If an encoder had other weights, or another revision, for one source than for another.
    """
    found: dict[str, tuple[str, dict]] = {}
    for source in sources:
        for name, made_by in _of(source, needs, device).items():
            other, first = found.setdefault(name, (source.section, made_by))
            if not same(first, made_by):
                what, mend = _named(name, needs, "Embed both again by pp.embed, with one.")
                raise BadInput(
                    f"{what} are by {told(first, made_by)} in section '{other}', and by {told(made_by, first)} in "
                    f"section '{source.section}'. {mend}"
                )
    return {name: made_by for name, (_, made_by) in found.items()}


def of_fit(provenance: Mapping, needs: Needs) -> dict[str, dict]:
    """Provenance of the encoders of a fit, by name, where it says so; it may have been read from any file."""
    said = provenance.get("encoders")
    said = said if isinstance(said, Mapping) else {}
    return {name: said[name] for name in (*needs.encoders, *needs.maps) if isinstance(said.get(name), Mapping)}


def check(predictor: Model, source: Source, device: str) -> None:
    """Check that the features of a section are made as those of the fit; they are computed if need be."""
    fitted = of_fit(predictor.provenance, predictor.needs)
    for name, made_by in _of(source, predictor.needs, device).items():
        first = fitted.get(name, {})
        if not same(first, made_by):
            embed = "Embed the section again by pp.embed, with the encoder of the fit; or fit again."
            what, mend = _named(name, predictor.needs, embed)
            raise BadInput(
                f"'{predictor.card.name}' was fitted on {what} by {told(first, made_by)}, and those of section "
                f"'{source.section}' are by {told(made_by, first)}. {mend}"
            )


def _named(name: str, needs: Needs, embed: str) -> tuple[str, str]:
    """What was made otherwise, in a message, and what to do: maps are not embedded."""
    if name not in needs.maps:
        return f"features of encoder '{name}'", embed
    return f"maps of {name}", "Pass nuclei_key= to all or to none; or fit again." if name == "nuclei" else "Fit again."


def _of(source: Source, needs: Needs, device: str) -> dict[str, dict]:
    """Provenance of the encoders of a source's features; of sources that do not tell, nothing is known."""
    return source.encoded(needs, device=device) if hasattr(source, "encoded") else {}
