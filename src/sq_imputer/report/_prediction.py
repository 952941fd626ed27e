"""The report of a prediction: what it was made of, what it is worth where that is known, and what it looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed, named
from sq_imputer.report._page import Page, listed_once, with_intervals
from sq_imputer.runs.reliability import EDGE, beyond
from sq_imputer.runs.sections import check_table, records
from sq_imputer.runs.views import names_of, with_table
from sq_imputer.store.provenance import pythonic

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame
    from spatialdata import SpatialData

    from sq_imputer.runs.sections import Sections

DRAWN = 3  # genes: the best, the middle and the last of those scored
MOST_SECTIONS = 4  # that are drawn
DIGITS = 12  # of a hash
WITH_BASELINES = (
    "Given depth: beyond what the total counts of a spot tell, which no image says. What lies within the intervals of "
    "ridge on texture, or of depth only, is no gain. A constant, such as the mean, has no correlation; where every "
    "fold has a mean of its own, it is lower the higher the values are that were left out."
)
WITHOUT_BASELINES = (
    "No baselines stand beside these scores: they are fitted on the sections that the model was fitted on, which were "
    "not given (reference)."
)
OF_FOLDS = (
    "Domains of a prediction that was made out of fold may follow the borders of the folds, since each is another "
    "model's; tl.agreement tells how far they do, and n_repeats=5 averages over several partitions."
)
SAID = {
    "how": "made",
    "unit": "unit",
    "training_sections": "fitted on",
    "shares_patient": "training had this patient",
    "n_folds": "folds",
    "buffer_um": "buffer between folds, µm",
    "n_repeats": "partitions into folds",
    "mpp": "µm per pixel",
    "resolution": "read at µm per pixel",
    "seed": "seed",
}


def prediction(
    sdata: SpatialData,
    path: str | Path,
    *,
    key: str = "imputed",
    genes: str | Sequence[str] | None = None,
    reference: Sections | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> Path:
    """Write one HTML file of a prediction: origin, scores beside baselines, trust, pictures.

    Parameters
    ----------
    sdata
        An object that `tl.predict` wrote to; it is not changed.
    path
        The file.
    key
        Table that `tl.predict` wrote.
    genes
        Genes, or columns of another target, that are drawn; the best, the middle and the last of those scored if left
        out.
    reference
        The sections that the model was fitted on, for baselines of a model that was not predicted out of fold. Without
        them its scores stand alone, and the page says so.
    overwrite
        Replace a file of this name.
    seed
        Of bootstrap and noise ceiling.

    Returns
    -------
    The file: it opens without a network.

    Raises
    ------
    MissingKey
        If there is no such table, no prediction in it, or no such gene.
    BadInput
        If there is a file of this name.

    Examples
    --------
    >>> path = sqi.report.prediction(sdata, "section.html")  # doctest: +SKIP
    """
    path, table = Path(path), check_table(sdata, key)
    if path.exists() and not overwrite:
        raise BadInput(f"'{path}' exists already; pass overwrite=True, or another name.")
    found = {name: pythonic(record) for name, record in records(table).items()}
    wanted = None if genes is None else named("genes", genes)
    missing = [gene for gene in wanted or () if gene not in table.var_names]
    if missing:
        raise MissingKey(f"no {listed(missing)} in tables['{key}'].")
    own = with_table(sdata, key, table.copy())  # scores are kept there
    page = Page(f"Prediction in tables['{key}']")
    _about(page, table, names_of(table, key))
    _origin(page, found)
    scores = _scores(page, own, key, found, reference, seed)
    _trust(page, table, found)
    _pictures(page, own, key, wanted or _chosen(table, scores))
    path.write_text(page.html(), encoding="utf-8")
    return path


def _about(page: Page, table: AnnData, sections: Sequence[str]) -> None:
    n = int(table.obs["measured"].sum()) if "measured" in table.obs else 0
    where = f"section {sections[0]}" if len(sections) == 1 else f"{len(sections)} sections: {', '.join(sections)}"
    page.words(f"{table.n_obs} rows, of which {n} were measured, and {table.n_vars} columns; {where}.")


def _origin(page: Page, found: Mapping[str, Mapping]) -> None:
    import pandas as pd

    page.heading("Where the numbers come from")
    rows = {name: _told(record) for name, record in found.items()}
    page.table(pd.DataFrame(rows).rename_axis("").reset_index().fillna("–"))
    shared = [name for name, record in found.items() if record.get("shares_patient")]
    if shared:
        page.words(f"Training had the same patient: {', '.join(shared)}. Scores are of such cases.", note=True)


def _told(record: Mapping) -> dict[str, str]:
    """What a record says of how a prediction was made, in words."""
    told = {words: record[field] for field, words in SAID.items() if field in record}
    told["encoders"] = [one["name"] for one in record.get("encoders", {}).values()]
    told["sha256 of the weights"] = [one[:DIGITS] for one in named("weights", record.get("weights_sha256", ()))]
    told |= {f"version of {name}": one for name, one in record.get("versions", {}).items()}
    return {words: _text(value) for words, value in told.items()}


def _text(value) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    if isinstance(value, list):
        return listed_once(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _scores(page: Page, sdata: SpatialData, key: str, found: Mapping, reference, seed: int) -> DataFrame | None:
    """Means with intervals of every section, beside the baselines that can be fitted; none if nothing was measured."""
    import pandas as pd

    from sq_imputer import pl
    from sq_imputer.tl._score import scored_by_section

    page.heading("What it is worth")
    table = sdata.tables[key]
    if "measured" not in table.obs or not table.obs["measured"].any():
        page.words("Nothing was measured here, so it cannot be scored. Score the model on sections that were measured.")
        return None
    beside = reference is not None or all(record.get("n_folds") for record in found.values())
    how = {"reference": reference, "baselines": beside, "seed": seed}
    each = scored_by_section(sdata, key=key, **how)
    for name, scores in each.items():
        means = scores.per_section()
        page.words(f"Section {name}: mean over {means['n_genes'].iloc[0]} columns [95 % interval over spatial blocks].")
        page.table(with_intervals(means, "predictor"))
    page.words(WITH_BASELINES if beside else WITHOUT_BASELINES, note=True)
    per_gene = pd.concat([scores.per_gene for scores in each.values()], ignore_index=True)
    if "pearson_given_depth" in per_gene:
        ax = pl.skill(per_gene, metric="pearson_given_depth")
        page.picture(ax.figure, "Pearson given depth of every gene, best first, a line per predictor")
    return per_gene


def _trust(page: Page, table: AnnData, found: Mapping) -> None:
    """How many genes are beyond chance, where `tl.trust` has said it, and rows unlike anything seen in training."""
    import pandas as pd

    page.heading("Where to believe it")
    for name in found:
        if f"{name}_reason" in table.var:
            counts = table.var[f"{name}_reason"].astype(str).value_counts()
            page.table(pd.DataFrame({f"{name}: genes that are": counts.index, "number": counts.to_numpy()}))
        else:
            page.words(f"{name}: which genes are predicted beyond chance was not tested; tl.trust does.", note=True)
        ood = table.obs[f"{name}_ood"].to_numpy(dtype=float) if f"{name}_ood" in table.obs else np.empty(0)
        share = beyond(ood)
        if share == share:
            page.words(f"{name}: {share:.1%} of the rows look unlike training (obs['{name}_ood'] above {EDGE}).")


def _chosen(table: AnnData, scores: DataFrame | None) -> list[str]:
    """The best, the middle and the last gene of the prediction that was written first; without scores the first."""
    if scores is None or "pearson" not in scores:
        return list(table.var_names[:DRAWN])
    own = scores[scores["predictor"] == scores["predictor"].iloc[0]]
    means = own.groupby("gene")["pearson"].mean().dropna().sort_values(ascending=False)
    at = np.unique(np.linspace(0, len(means) - 1, min(DRAWN, len(means))).astype(int))
    return list(means.index[at]) or list(table.var_names[:DRAWN])


def _pictures(page: Page, sdata: SpatialData, key: str, genes: Sequence[str]) -> None:
    from sq_imputer import pl

    table = sdata.tables[key]
    sections, (layer, made) = names_of(table, key), list(records(table).items())[-1]
    page.heading(f"What it looks like: {layer}")
    for name in sections[:MOST_SECTIONS]:
        axes = pl.compare(sdata, genes, key=key, layer=layer, section=name if len(sections) > 1 else None)
        page.picture(
            axes.flat[0].figure, f"{', '.join(genes)} in section {name}: measured, predicted and their residual"
        )
        if "domain" in table.obs:
            ax = pl.domains(sdata, key=key, section=name if len(sections) > 1 else None)
            page.picture(ax.figure, f"Spatial domains of section {name}")
    if "domain" in table.obs and made.get("n_folds", 1) > 1 and made.get("n_repeats", 1) == 1:
        page.words(OF_FOLDS, note=True)
    if len(sections) > MOST_SECTIONS:
        page.words(f"{len(sections) - MOST_SECTIONS} sections more are not drawn.", note=True)
