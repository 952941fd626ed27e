"""One section that is being looked at: what there is, and what can be done with it. Knows nothing of windows.

Everything that takes a while gives a :class:`sq_imputer.widget._job.Job`, which runs in a thread; what is asked of the
object itself is answered at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sq_imputer import external
from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.runs.sections import N_GENES, pick_genes, records, resolve_model, shelf_of
from sq_imputer.section import read
from sq_imputer.section.anchors import anchored
from sq_imputer.section.frame import read_frame
from sq_imputer.section.image import find_image
from sq_imputer.section.points import at_points
from sq_imputer.section.slide import Slide
from sq_imputer.tl._domains import matrix
from sq_imputer.widget._estimate import Estimate, estimate
from sq_imputer.widget._job import Job
from sq_imputer.widget._lattice import Region, region_of
from sq_imputer.widget._live import Live, Said
from sq_imputer.widget._region import Known, means
from sq_imputer.widget._requests import KEY, Request, carry_out, grid_of, with_shapes
from sq_imputer.widget._views import Views

if TYPE_CHECKING:
    from pandas import DataFrame
    from spatialdata import SpatialData

    from sq_imputer.predictor.base import Predictor
    from sq_imputer.predictor.registry import ModelCard
    from sq_imputer.section.frame import Frame

MOST_LISTED = 50  # genes that a search shows
LEFT_OUT = ("out of fold", "fitted on other")  # what a record says of a prediction whose models had not seen the row


@dataclass
class Session:
    """An object and what has been opened beside it.

    Parameters
    ----------
    sdata
        The object; written to only by :meth:`predict`.
    image_key, table_key, coordinate_system
        As :meth:`sq_imputer.Slide.from_sdata` takes them.
    """

    sdata: SpatialData
    image_key: str | None = None
    table_key: str | None = "table"
    coordinate_system: str | None = None
    references: dict[str, SpatialData] = field(default_factory=dict)
    models: dict[str, Predictor] = field(default_factory=dict)
    _slides: dict[str | None, Slide] = field(default_factory=dict, repr=False)
    _live: dict[str, Live] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        read.check_object(self.sdata)
        self.image_key = find_image(self.sdata, self.image_key)
        if self.table_key == "table" and "table" not in self.sdata.tables:  # a slide without counts
            self.table_key = None
        read.check_table_key(self.sdata, self.table_key)

    # What there is ----------------------------------------------------------------------------------

    def shapes(self) -> dict[str, int]:
        """Shapes that lie on the image, and how many rows each has; what was measured comes first."""
        systems = set(read.systems(self.sdata.images[self.image_key]))
        there = {name: len(one) for name, one in self.sdata.shapes.items() if systems & set(read.systems(one))}
        measured = self.measured_shapes()
        return {name: there[name] for name in sorted(there, key=lambda name: (name not in measured, name))}

    def measured_shapes(self) -> list[str]:
        """Shapes that the table of counts annotates."""
        if self.table_key is None or self.table_key not in self.sdata.tables:
            return []
        return read.annotated(self.sdata, self.table_key)

    def cards(self) -> dict[str, ModelCard]:
        """The cards of all models that can be chosen, those fitted or opened here first. Imports their files."""
        from sq_imputer.predictor.registry import get_model, list_models

        found = {name: model.card for name, model in self.models.items()}
        found |= {name: get_model(name).card for name in list_models()}
        found = {name: card for name, card in found.items() if card.rows == "spots"}  # others read no section
        return found | {f"{external.PREFIX}{card.name}": card for card in external.cards()}

    def genes(self, search: str = "", most: int = MOST_LISTED) -> list[str]:
        """Genes of the table whose name has these letters: those that begin with them first."""
        names = self._names()
        text = search.strip().lower()
        begin = [name for name in names if name.lower().startswith(text)]
        within = [name for name in names if text in name.lower() and not name.lower().startswith(text)] if text else []
        return (begin + within)[:most]

    def _names(self) -> list[str]:
        tables = self.sdata.tables
        if self.table_key in tables:
            return list(map(str, tables[self.table_key].var_names))
        others = [one.tables["table"] for one in self.references.values() if "table" in one.tables]
        tables = [tables[key] for key in self.predictions()] + others
        return list(dict.fromkeys(str(gene) for table in tables for gene in table.var_names))

    def predictions(self) -> dict[str, list[str]]:
        """Layers of predictions, by table."""
        found = {key: list(records(table)) for key, table in self.sdata.tables.items()}
        return {key: layers for key, layers in found.items() if layers}

    def _first_shapes(self) -> str | None:
        """What was measured, or else other shapes; None if there are none."""
        return next(iter(self.measured_shapes() or self.shapes()), None)

    def frame(self) -> Frame:
        """The place of the image, in the coordinate system in which its shapes lie on it."""
        shapes_key, system = self._first_shapes(), self.coordinate_system
        if shapes_key is not None:
            system = read.geometry(self.sdata, self.image_key, shapes_key, system).coordinate_system
        return read_frame(self.sdata, self.image_key, system, table_key=self.table_key, shapes_key=shapes_key)

    def slide(self, shapes_key: str | None = None) -> Slide:
        """The section at these shapes, read once; what was measured if none are named."""
        if shapes_key is None:
            shapes_key = self._first_shapes()
        if shapes_key not in self._slides:
            self._slides[shapes_key] = self._read(shapes_key)
        return self._slides[shapes_key]

    def _read(self, shapes_key: str | None) -> Slide:
        """The section at these shapes; without any, at one spot in the middle of its image."""
        sdata, where = self.sdata, {"table_key": self.table_key, "coordinate_system": self.coordinate_system}
        if shapes_key is None:
            frame = read_frame(sdata, self.image_key, self.coordinate_system, table_key=None)
            corners = frame.box_um.mean(axis=0) + 100.0 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
            circles = grid_of(sdata, region_of(corners, 100.0), self.image_key, frame)
            sdata, shapes_key, where["table_key"] = with_shapes(sdata, "middle", circles), "middle", None
        slide = Slide.from_sdata(sdata, self.image_key, shapes_key, **where)
        return anchored(slide, sdata)  # scaled as the verbs scale what was not measured

    # What is opened beside it -----------------------------------------------------------------------

    def open_reference(self, path: str | Path) -> str:
        """Open a store of another section to fit on; its name.

        Raises
        ------
        BadInput
            If it is no store, or the object itself.
        """
        from sq_imputer.io import read_zarr

        if self.sdata.is_backed() and Path(path).resolve() == Path(self.sdata.path).resolve():
            raise BadInput(f"'{path}' is the object itself, which is predicted; open other sections as references.")
        opened = read_zarr(path)
        name = str(opened.attrs.get("section", Path(path).stem))
        name = name if name not in self.references else f"{name} ({len(self.references) + 1})"
        self.references[name] = opened
        return name

    def open_model(self, path: str | Path) -> str:
        """Load a fitted model from its folder; its name in the list of models."""
        from sq_imputer.predictor.folder import load

        return self.add_model(load(path), Path(path).name)

    def add_model(self, predictor: Predictor, name: str | None = None) -> str:
        """Offer a fitted model; its name in the list."""
        if not predictor.fitted:
            raise BadInput(f"'{predictor.card.name}' is not fitted; it is in the list of models by its name already.")
        name = name or f"{predictor.card.name} (fitted)"
        self.models[name] = predictor
        self._live.pop(name, None)
        return name

    # What is done -----------------------------------------------------------------------------------

    def estimate(self, request: Request) -> Job:
        """What a prediction will cost: a job of a second or two whose result is an :class:`Estimate`."""
        return Job(lambda: self._estimate(request), "a look at what it will cost").start()

    def _estimate(self, request: Request) -> Estimate:
        predictor = resolve_model(self._model(request.model), request.further.get("config"))
        target, training = self._target(request), []
        n_genes, n_folds = len(predictor.genes), 1
        if not predictor.fitted:
            training = [Slide.from_sdata(one) for one in request.reference] or [self.slide()]
            chosen = pick_genes(training, N_GENES if request.genes is None else request.genes)
            n_genes, training = len(chosen), [one.with_genes(chosen) for one in training]
            if not request.reference and target is self.slide():
                n_folds, target = int(request.further.get("n_folds", 5)), training[0]
        return estimate(predictor, target, training, n_genes, n_folds, request.device)

    def _target(self, request: Request) -> Slide:
        """The rows of a prediction."""
        if request.region is None:
            return self.slide(request.shapes_key)
        slide = self.slide()
        inside = request.region.xy_um[slide.frame.holds(request.region.xy_um)]
        return at_points(slide, inside, request.region.spacing_um)

    def predict(self, request: Request, then: Callable[[], None] | None = None) -> Job:
        """Predict and write. Cancelled or failed, object and store are as they were."""

        def work() -> None:
            named = {"image_key": self.image_key, "table_key": self.table_key}
            keys = named | {"coordinate_system": self.coordinate_system}
            others = [Slide.from_sdata(one) for one in request.reference]  # whose elements have names of their own
            asked = replace(request, model=self._model(request.model), reference=others)
            carry_out(self.sdata, asked, self.slide().frame, keys)
            self._slides.clear()  # shapes may be new
            if then is not None:
                then()

        return Job(work, "the prediction").start()

    def fit(self, model: str, genes: Sequence[str] | int, device: str = "auto", **further) -> Job:
        """Fit a model on what is measured here, to ask it about drawn regions; the result is its name in the list."""

        def work() -> str:
            from sq_imputer.tl import fit

            where = {"image_key": self.image_key, "table_key": self.table_key}
            fitted = fit(self.sdata, model, genes=genes, device=device, **where, **further)
            return self.add_model(fitted, f"{model} (fitted here)")

        return Job(work, f"fitting {model}").start()

    def region(self, polygon_um: np.ndarray, spacing_um: float | None = None, most: int | None = None) -> Region:
        """A drawn polygon in µm as points of a lattice."""
        return region_of(polygon_um, spacing_um, **({} if most is None else {"most": most}))

    def look(self, region: Region, model: str, device: str = "cpu") -> Said:
        """What a fitted model says in a region; points that it was asked about before cost nothing."""
        if model not in self._live:
            self._live[model] = Live(self.slide(), self._fitted(model), device)
        return self._live[model](region)

    def saw(self, model: str) -> bool:
        """Whether a fitted model that was asked about a region was fitted on this very picture."""
        return model in self._live and self._live[model].saw_these_spots

    def explained(self, model: str, shapes_key: str) -> Slide:
        """The section at these shapes as a fitted model reads it."""
        return replace(self.slide(shapes_key), encoders=shelf_of(self._fitted(model)))

    def sections(self) -> dict[str, Slide]:
        """The section and those that were opened, by the names that retrieved spots have of them."""
        slides = [self.slide(), *(Slide.from_sdata(one) for one in self.references.values())]
        return {slide.section: slide for slide in slides}

    def numbers(self, said: Said, model: str, key: str = KEY) -> DataFrame:
        """The numbers of a region (:func:`sq_imputer.widget._region.means`), measured spots beside them."""
        slide, known, inside = self.slide(), None, None
        predictor = self._fitted(model)
        there = slide.which(said.genes)
        if slide.counts is not None and len(there) == len(said.genes):
            own = slide.with_genes(said.genes, predictor.unit)
            rows = np.flatnonzero(own.measured)
            known = Known(own.xy_um[rows], own.expression[rows].astype(float), self._left_out(own, predictor, key))
            known = known if known.predicted is None else known._replace(predicted=known.predicted[rows])
            inside = said.region.holds(known.xy_um)
        return means(list(said.genes), said.mean, said.std, said.region.area_um2, known, inside)

    def _left_out(self, slide: Slide, predictor: Predictor, key: str) -> np.ndarray | None:
        """What models of this kind that had not seen a row say of it `(n, G)`, as written by `tl.predict`; or None."""
        table = self.sdata.tables.get(key)
        if table is None:
            return None
        made = {"model": predictor.card.name, "unit": predictor.unit}
        layers = [
            name
            for name, one in records(table).items()
            if made.items() <= one.items() and str(one.get("how", "")).startswith(LEFT_OUT)
        ]
        if not layers:
            return None
        at, where = slide.rows_in(table, key)
        columns = table.var_names.get_indexer(list(slide.genes))
        there, values = np.flatnonzero(columns >= 0), np.full((len(slide), len(slide.genes)), np.nan)
        values[np.ix_(where, there)] = matrix(table.layers[layers[-1]])[np.ix_(at, columns[there])]
        return values

    def _fitted(self, model: str) -> Predictor:
        if model not in self.models:
            raise MissingKey(f"no fitted model '{model}'; there are {listed(self.models)}. Fit or open one first.")
        return self.models[model]

    def views(self, key: str = KEY, layer: str | None = None) -> Views:
        """A prediction, to be looked at gene by gene; the last that was written if no layer is named."""
        return Views(self.sdata, key, layer)

    def _model(self, model: Any) -> Any:
        return self.models.get(model, model) if isinstance(model, str) else model
