"""Spatial domains of a prediction, and of what it can be compared with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.device import pick_device
from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.runs.checks import warn_of_picture
from sq_imputer.runs.sections import check_table, records
from sq_imputer.runs.views import views_of
from sq_imputer.scores.moments import chunks
from sq_imputer.section import read
from sq_imputer.section.keys import verb
from sq_imputer.section.pixel_size import as_seen
from sq_imputer.section.slide import Slide
from sq_imputer.store import write
from sq_imputer.store.provenance import pythonic
from sq_imputer.tl._clusters import MOST_EXACT, Settings, cluster, outlines
from sq_imputer.tl._domain_names import check_names, named_objects, outlines_of

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from pandas import Categorical
    from spatialdata import SpatialData

    Objects = SpatialData | Sequence[SpatialData] | Mapping[str, SpatialData]

USES = ("prediction", "embedding", "both", "measured", "texture")
LEAST_SPOTS = 10
ROWS_AT_ONCE = 8192  # that are read of a lazy matrix
# Okabe and Ito: told apart by colorblind readers. There is no such palette of more colors; scanpy's are used then.
_EIGHT = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")


@verb
def domains(
    sdata: Objects,
    *,
    sections: str | Sequence[str] | None = None,
    layer: str | None = None,
    use: str = "prediction",
    method: str = "leiden",
    n_domains: int | None = None,
    resolution: float | None = None,
    n_pcs: int = 20,
    spatial_weight: float = 0.3,
    smooth: int = 0,
    key: str = "imputed",
    key_added: str = "domain",
    shapes_added: str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Find spatial domains of a prediction and write them as a categorical column.

    Columns are scaled within each section, so that neither stain nor batch makes a domain: sections that are taken
    together should hold the same kinds of tissue. Principal components of all sections are then clustered jointly. The
    order of rows does not matter. Domains are named by size over all sections: `"0"` is the largest. Whether they say
    more than chance, the image alone, or the folds of the prediction, :func:`sq_imputer.tl.agreement` tells.

    Parameters
    ----------
    sdata
        An object with predictions, or a list or dict of objects whose domains shall be the same.
    sections
        Of a table of several sections, which: names, or the column that names them; all if left out.
    layer
        The model; the one whose prediction was written last if left out.
    use
        `"prediction"`; `"embedding"`, what one model made of the image (`obsm[layer]`); `"both"`; `"measured"`
        expression of the same genes; `"texture"` features of the image alone.
    method
        `"leiden"` on a graph of 15 neighbors in expression and the neighbors in space; `"kmeans"` or `"gmm"`
        (Gaussian mixture) without a graph: of more than 100,000 rows take k-means.
    n_domains
        Number of domains over all sections. Leiden finds the resolution by bisection; where no resolution gives this
        number, the smallest domains join those of the nearest mean. A mixture may leave some empty, and `smooth` too.
    resolution
        Of Leiden; 1 if neither is given.
    n_pcs
        Principal components.
    spatial_weight
        0 to 1. The share that edges between neighbors in space have in the weight of Leiden's graph, or the mean of
        these neighbors in the features of a spot (k-means, mixture).
    smooth
        Rounds in which every spot takes the domain of most of its neighbors in space.
    key
        Table that `tl.predict` wrote.
    key_added
        Column of `obs`; colors go to `uns["<key_added>_colors"]`, settings to `uns["<key_added>"]["params"]`.
    shapes_added
        Name of a shapes element for the outlines of the domains, in the coordinate systems of the spots; none if left
        out. Of a table of several sections every one has its own, `<shapes_added>_<section>`, or its number where its
        name cannot be that of an element.
    overwrite
        Replace domains, and outlines, of these names.
    seed
        Of everything random.
    device
        Where the texture encoder runs, if its features are not in the table.

    Raises
    ------
    MissingKey
        If the table, the layer, or its embedding is missing.
    BadInput
        If settings do not go together, names are taken, sections differ in genes, unit or model, or the embedding was
        made by several models, as it is out of fold. Nothing has been computed then.

    Notes
    -----
    Out of fold, every block of spots was predicted by another model, and domains may end where the blocks do, along
    straight lines (`ari_folds` of :func:`sq_imputer.tl.agreement`): a warning says so. What `reference` sections, or
    other sections of the object, predict has no such folds; the mean over several partitions
    (`tl.predict(..., n_repeats=5)`) has them but faintly. Neither the order of the rows nor the order or the names of
    the sections decide about domains. Leiden is a heuristic with a seed: another seed, one section more, or values that
    differ by more than rounding may give other domains, the more so the weaker
    these are; several seeds show how far to trust them.

    Examples
    --------
    >>> sqi.tl.domains(sdata, n_domains=3)
    """
    settings = Settings(method, n_domains, resolution, n_pcs, spatial_weight, smooth, seed)
    settings.check()
    pick_device(device)
    if use not in USES:
        raise BadInput(f"use is '{use}'; expected one of {listed(USES)}.")
    if method == "leiden" and find_spec("igraph") is None:
        raise BadInput(
            "method 'leiden' needs igraph, which is not installed: pip install igraph, or pass method='kmeans' and "
            "n_domains=."
        )
    whole = named_objects(sdata)
    for one in whole.values():
        check_table(one, key)
        check_names(one, key, key_added, overwrite)
    taken = []
    for name, origin, view, shapes in _views(whole, key, sections, shapes_added, overwrite):
        one = read_features(view.sdata, name, use, layer, key, device)
        taken.append(replace(one, origin=origin, at=view.rows, shapes=shapes))
    settings.warn_of_time(sum(len(one.rows) for one in taken))
    _check_alike(taken, use)
    _warn_of_folds(taken, use)
    found, settings = cluster(common_columns(taken), [s.table.obsm["spatial"][s.rows] for s in taken], settings)
    settings = {"use": use, **asdict(settings), "sections": [one.name for one in taken]}
    _write(taken, found, settings, key, key_added, overwrite)


@dataclass(frozen=True)
class Section:
    """What is clustered of one object: blocks of features for these rows of its table."""

    sdata: SpatialData
    name: str
    table: AnnData
    layer: str
    rows: np.ndarray
    blocks: list[np.ndarray]
    columns: list[list[str]]
    origin: SpatialData | None = None  # whose table has `at` as the rows of this one, if it has several sections
    at: np.ndarray | None = None
    shapes: str | None = None  # element of the outlines

    @property
    def record(self) -> dict:
        """Provenance of the prediction."""
        return records(self.table)[self.layer]


def read_features(sdata: SpatialData, name: str, use: str, layer: str | None, key: str, device: str) -> Section:
    """The features of one section, and the rows that have them; reads pixels for missing texture features only."""
    table = check_table(sdata, key)
    layer = find_layer(table, key, layer)
    if "spatial" not in table.obsm:
        raise MissingKey(f"no obsm['spatial'] in tables['{key}']; call tl.predict again to restore it.")
    parts = {}
    if use in ("prediction", "both"):
        parts[layer] = matrix(table.layers[layer])
    if use in ("embedding", "both"):
        parts["embedding"] = _embedding(table, key, layer)
    if use == "measured":
        parts["measured"] = matrix(table.layers["measured"])
    if use == "texture":
        parts |= _texture(sdata, table, key, layer, device)
    names, blocks = [], []
    for part, values in parts.items():
        seen = np.isfinite(values).any(axis=0)
        genes = part in (layer, "measured") and values.shape[1] == table.n_vars
        labels = table.var_names if genes else [f"{part} {i}" for i in range(values.shape[1])]
        names.append([str(label) for label, keep in zip(labels, seen, strict=True) if keep])
        blocks.append(values if seen.all() else values[:, seen])
    if use == "texture":
        names, blocks = [sum(names, [])], [np.concatenate(blocks, axis=1)]
    rows = np.flatnonzero(np.all([np.isfinite(block).all(axis=1) & (block.shape[1] > 0) for block in blocks], axis=0))
    if len(rows) < LEAST_SPOTS or np.ptp(table.obsm["spatial"][rows], axis=0).min() <= 0:
        raise BadInput(
            f"section '{name}' has {len(rows)} spots with {use} values; {LEAST_SPOTS} or more are needed, not on one "
            "line. Pass use= what there is more of."
        )
    if len(rows) < table.n_obs:
        blocks = [block[rows] for block in blocks]
    return Section(sdata, name, table, layer, rows, blocks, names)


def find_layer(table: AnnData, key: str, layer: str | None) -> str:
    """The prediction as named, else the only one, else the one that X is a copy of."""
    there = [name for name in records(table) if name in table.layers]
    if layer is None and len(there) > 1 and table.X is not None:
        last = matrix(table.X)
        there = [name for name in there if np.array_equal(matrix(table.layers[name]), last, equal_nan=True)]
    if layer is None and len(there) != 1:
        raise MissingKey(
            f"tables['{key}'] does not say which prediction is its last; it has {listed(records(table))}. Pass layer=."
        )
    if layer is not None and layer not in there:
        raise MissingKey(f"no prediction '{layer}' in tables['{key}']; it has {listed(there)}. Pass layer=.")
    return layer or there[0]


def matrix(values) -> np.ndarray:
    """A matrix of the table; of many rows in float32, and of a lazy one (a streamed layer is) some rows at a time."""
    found = np.empty(values.shape, np.float32 if values.shape[0] > MOST_EXACT else float)
    for rows in chunks(np.arange(len(found)), ROWS_AT_ONCE):
        part = values[rows[0] : rows[-1] + 1]
        part = part.compute() if hasattr(part, "compute") else part
        found[rows[0] : rows[-1] + 1] = part.toarray() if hasattr(part, "toarray") else part
    return found


def _embedding(table: AnnData, key: str, layer: str) -> np.ndarray:
    if layer not in table.obsm:
        raise MissingKey(f"model '{layer}' has no embedding in tables['{key}'].obsm. Pass use='prediction'.")
    made_by = records(table)[layer].get("weights_sha256", "")
    if not isinstance(made_by, str) and len(set(made_by)) > 1:
        raise BadInput(
            f"the embedding of '{layer}' was made by {len(set(made_by))} models, one per fold, and their axes have "
            "nothing in common. Predict with a fitted model or reference=, or pass use='prediction'."
        )
    return matrix(table.obsm[layer])


def _texture(sdata: SpatialData, table: AnnData, key: str, layer: str, device: str) -> dict[str, np.ndarray]:
    """Texture features that the model saw, else those of the default crop."""
    kept = pythonic(table.uns["sq_imputer"].get("embeddings", {}))
    names = sorted(name for name, made in kept.items() if made["encoder"] == "texture" and name in table.obsm)
    if names:
        return {name: matrix(table.obsm[name]) for name in names}
    made = records(table)[layer]
    slide = Slide.from_sdata(sdata, **as_seen(made))
    what = f"texture is of the present picture, '{layer}' of that of then"
    warn_of_picture(slide.frame, made, slide.keys["image_key"], what)
    rows, where = slide.rows_in(table, key)
    seen = slide.features("texture", CropSpec(), device=device)
    values = np.full((table.n_obs, seen.shape[1]), np.nan)
    values[rows] = seen[where]
    return {"X_texture": values}


def _views(whole: Mapping[str, SpatialData], key: str, sections, shapes: str | None, overwrite: bool) -> list[tuple]:
    """Name, object, view and outlines of every section, by name: the order in which they were given must not matter."""
    found = []
    for name, one in whole.items():
        views = views_of(one, key, sections)
        names = outlines_of(one, shapes, list(views), overwrite)
        parts = zip(views.items(), names, strict=True)
        found += [(name if len(views) == 1 else part, one, view, outlined) for (part, view), outlined in parts]
    return sorted(found, key=lambda part: part[0])


def _warn_of_folds(sections: Sequence[Section], use: str) -> None:
    """Domains of what several models predicted, each its block, are drawn along the blocks."""
    shown = [one for one in sections if use in ("prediction", "both")]
    folded = [one.name for one in shown if one.record["n_folds"] > 1 and one.record.get("n_repeats", 1) == 1]
    if folded:
        warnings.warn(
            f"domains of sections {listed(folded)} are of out-of-fold predictions, in which every spatial block is "
            "another model's, and may follow the blocks. Predict from other sections (reference= or sections=), or by "
            "the mean over several partitions (n_repeats=5); tl.agreement tells how far they do.",
            UserWarning,
            stacklevel=4,
        )


# Checks -------------------------------------------------------------------------------------------


def _check_alike(sections: Sequence[Section], use: str) -> None:
    """Whether the values of the sections mean the same."""
    first = sections[0]
    for other in sections[1:]:
        if use in ("prediction", "both", "embedding") and other.layer != first.layer:
            raise BadInput(
                f"the last prediction is '{first.layer}' in section '{first.name}' and '{other.layer}' in "
                f"'{other.name}'. Pass layer=."
            )
        if use != "texture" and other.record["unit"] != first.record["unit"]:
            raise BadInput(
                f"section '{first.name}' is in '{first.record['unit']}', '{other.name}' in '{other.record['unit']}'; "
                "predict them in one unit."
            )
        same = other.record.get("weights_sha256") == first.record.get("weights_sha256")
        if use in ("embedding", "both") and not same:
            raise BadInput(
                f"the embeddings of sections '{first.name}' and '{other.name}' were made by different models of the "
                f"name '{first.layer}'. Predict all with one fitted model, or pass use='prediction'."
            )


def common_columns(sections: Sequence[Section]) -> list[list[np.ndarray]]:
    """The blocks of every section, cut to the columns that all of them have."""
    shared = []
    for names in zip(*(section.columns for section in sections), strict=True):
        kept = [name for name in names[0] if all(name in other for other in map(set, names[1:]))]
        if not kept:
            raise BadInput("the sections have no gene or feature in common; predict the same genes in all of them.")
        shared.append(kept)
    return [
        [
            block if names == kept else block[:, [names.index(name) for name in kept]]
            for block, names, kept in zip(section.blocks, section.columns, shared, strict=True)
        ]
        for section in sections
    ]


# Writing ------------------------------------------------------------------------------------------


def _write(sections, found, settings: dict, key: str, name: str, overwrite: bool) -> None:
    import pandas as pd

    colors = palette(max(int(labels.max()) for labels in found) + 1)
    whole = {id(one.origin): (one, np.full(one.origin.tables[key].n_obs, -1)) for one in sections}
    for section, labels in zip(sections, found, strict=True):
        whole[id(section.origin)][1][section.at[section.rows]] = labels
    outlined = [(s, _polygons(s, labels, key)) for s, labels in zip(sections, found, strict=True) if s.shapes]
    for section, here in whole.values():
        table = section.origin.tables[key]
        column = categorical(here)
        kept = [colors[int(one)] for one in column.categories]
        obs = pd.DataFrame({name: column}, index=table.obs_names)
        params = {**settings, "layer": section.layer, "n_domains": len(colors)}
        write.put_layers(section.origin, key, {}, obs=obs, uns={f"{name}_colors": kept, name: {"params": params}})
    for section, polygons in outlined:
        write.write_element(section.origin, "shapes", section.shapes, polygons, overwrite=overwrite)


def categorical(numbers: np.ndarray) -> Categorical:
    """Numbers as names: categories are those that occur, in their order; negative ones are missing."""
    import pandas as pd

    categories = [str(k) for k in np.unique(numbers[numbers >= 0])]
    return pd.Categorical([None if k < 0 else str(k) for k in numbers], categories=categories)


def palette(n: int) -> list[str]:
    """Colors of the first `n` domains: eight that colorblind readers tell apart, else those of scanpy."""
    from scanpy.plotting import palettes

    fits = [p for p in (_EIGHT, palettes.default_20, palettes.default_28, palettes.default_102) if len(p) >= n]
    colors = fits[0] if fits else palettes.default_102
    return [colors[k % len(colors)] for k in range(n)]


def _polygons(section: Section, found: np.ndarray, key: str) -> GeoDataFrame:
    from geopandas import GeoDataFrame
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import get_transformation

    shapes_key = section.record["shapes_key"]
    shapes = read.outlines(section.sdata, shapes_key)
    rows, where = read.rows_of(section.table, shapes.index, shapes_key, key)
    numbers, labels = np.full(section.table.n_obs, -1), np.full(len(shapes), -1)
    numbers[section.rows] = found
    labels[where] = numbers[rows]
    areas = outlines(read.centers(shapes, shapes_key), labels)
    counts = [int((labels == k).sum()) for k in areas]
    index = [str(k) for k in areas]
    frame = GeoDataFrame({"n_spots": counts}, geometry=list(areas.values()), index=index)
    return ShapesModel.parse(frame, transformations=get_transformation(section.sdata[shapes_key], get_all=True))
