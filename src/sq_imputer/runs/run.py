"""A run of `tl.predict`: models are fitted and asked about rows; what is done is kept in a journal, if there is one."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec, Prediction
from sq_imputer.device import BatchSize
from sq_imputer.encoders._canary import in_few
from sq_imputer.encoders._shelf import told
from sq_imputer.errors import BadInput, SqImputerError
from sq_imputer.places import summary
from sq_imputer.progress import quiet, track
from sq_imputer.scores.moments import chunks
from sq_imputer.store.journal import ALIKE, Journal, Part

if TYPE_CHECKING:
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.predictor.train import Plan
    from sq_imputer.runs.slots import Place
    from sq_imputer.section.slide import Slide
    from sq_imputer.store.workers import Workers

AT_ONCE = 8192  # rows that are predicted at a time where not all are held in memory: at most
MATRIX_BYTES = 16 << 20  # of such rows and all genes
N_LOOKS = 16  # crops that identify the image


@dataclass
class Piece:
    """What one model says of some rows, which ascend, and the bank that it retrieves from."""

    rows: np.ndarray
    prediction: Prediction
    bank: dict[str, np.ndarray] | None


class Run:
    """Fits models and asks them, or takes from the journal what an earlier process did.

    Parameters
    ----------
    plan
        How to train, and where to run.
    journal
        Where results are kept until the run is done; None: nowhere.
    """

    def __init__(self, plan: Plan, journal: Journal | None = None) -> None:
        self.plan, self.journal = plan, journal
        self.size = BatchSize(plan.batch_size or 64)

    def sections(self, slides: Sequence[Slide]) -> list[Slide]:
        """The slides, whose features are kept in the journal from now on."""
        if self.journal is None:
            return list(slides)
        first = [id(slide.made_by) for slide in slides]  # copies of one slide share this, and their features
        names = [f"section-{first.index(one)}" for one in first]
        return [replace(slide, journal=Part(self.journal, name)) for slide, name in zip(slides, names, strict=True)]

    def fit(self, name: str, predictor: Predictor, sources, plan: Plan | None = None) -> Predictor:
        """A model like this one, fitted (by another plan, if said); that of this name in the journal if it is there."""
        plan = plan or self.plan
        fresh = predictor.fresh()
        if self.journal is None:
            return fresh.fit(sources, plan)
        folder = self.journal.folder / f"model-{name}"
        if folder.is_dir():
            try:
                return fresh.load(folder)
            except SqImputerError:  # damaged, so fitted again
                shutil.rmtree(folder)
        fresh.fit(sources, plan).save(folder)
        return fresh

    def ask(self, name: str, predictor: Predictor, slide: Slide, rows: np.ndarray | None = None) -> Piece:
        """What a model says of rows of a section, all of them if none are named."""
        rows = np.arange(len(slide)) if rows is None else np.sort(rows)
        bank = predictor.bank() if predictor.retrieves else None
        if self.journal is None:
            return Piece(rows, self._predict(predictor, slide, rows), bank)
        index, parts = zip(*self._noted(name, predictor, slide, rows), strict=True)
        return Piece(rows, _gathered(parts, index), bank)

    def answers(
        self, name: str, predictor: Predictor, slide: Slide, rows: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, Prediction]]:
        """The same some rows at a time, with their numbers: for rows that are too many for memory."""
        rows = np.arange(len(slide)) if rows is None else np.sort(rows)
        if self.journal is None:
            step = at_once(len(predictor.genes))
            for some in track(chunks(rows, step), predictor.card.name, -(-len(rows) // step)):
                with quiet():
                    said = self._predict(predictor, slide, some)
                yield some, said
            return
        for some, part in self._noted(name, predictor, slide, rows):
            yield some, _prediction(part)

    def _noted(self, name: str, predictor: Predictor, slide: Slide, rows: np.ndarray) -> Iterator:
        order = _reading_order(predictor, slide, rows)
        return self.journal.parts(f"rows-{name}", order, _Asked(predictor, slide, self.size, self.plan.device))

    def _predict(self, predictor: Predictor, slide: Slide, rows: np.ndarray) -> Prediction:
        return predictor.predict(slide, rows=rows, batch_size=self.size, device=self.plan.device)


class _Asked:
    """What a model says of some rows of a section. If it reads the image itself, another process may ask it."""

    def __init__(self, predictor: Predictor, slide: Slide, size: BatchSize, device: str) -> None:
        self.predictor, self.slide, self.size, self.device = predictor, slide, size, device
        self.travels = not predictor.needs.encoders

    def __call__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return _arrays(self.predictor.predict(self.slide, rows=rows, batch_size=self.size, device=self.device))

    def __getstate__(self) -> dict:
        """Without counts and targets, which nobody looks at, and without the journal, which stays."""
        return {**self.__dict__, "slide": self.slide.seen_alone()}


def at_once(n_genes: int) -> int:
    """Rows that are predicted at a time: fewer of more genes, so that memory hangs on neither."""
    return max(1, min(AT_ONCE, MATRIX_BYTES // (4 * n_genes)))


@contextmanager
def open_run(
    home: Path | None, plan: Plan, manifest: Callable[[], Mapping], workers: Workers | None = None
) -> Iterator[Run]:
    """A run that begins, or goes on where one of the same manifest was killed; without a home, one that forgets.

    The journal is removed once the run has ended well. With workers these compute what it keeps.
    """
    if home is None:
        yield Run(plan)
        return
    with Journal(home, manifest(), workers) as journal:
        yield Run(plan, journal)
        journal.remove()


def journal_home(place: Place) -> Path:
    """The folder of a run's journal: hidden, beside the store that the result goes to.

    Raises
    ------
    BadInput
        If the result goes to no store.
    """
    if place.output_path is None and not place.sdata.is_backed():
        raise BadInput(
            "resume=True and client= keep a journal beside the store of the object, but this object is in memory only. "
            "Write it to a store and pass spatialdata.read_zarr of that, or pass output_path=, or leave out resume= "
            "and client=."
        )
    store = Path(place.sdata.path if place.output_path is None else place.output_path).resolve()
    return store.parent / f".{store.name}.{place.key}.{place.layer}.run"


def journals_beside(store: Path) -> list[Path]:
    """Folders of the journals of runs into a store that have not come to their end."""
    store = store.resolve()
    return sorted(store.parent.glob(f".{store.name}.*.run"))


def manifest(predictor: Predictor, targets: Sequence[Slide], training: Sequence[Slide], plan: Plan, **further) -> dict:
    """What a run is of: a journal with another manifest is another run's."""
    from importlib.metadata import version

    crop, names, encoders = predictor.needs.crop, predictor.needs.encoders, targets[0].encoders
    canaries = {name: {ALIKE: in_few(encoders.made_by(name).get("canary"))} for name in names}
    return {
        "model": predictor.card.name,
        "config": asdict(predictor.config),
        "weights_sha256": predictor.sha256 if predictor.fitted else None,
        **({} if predictor.knowledge is None else {"knowledge": predictor.knowledge.sha256}),
        "encoders": {name: told(encoders.made_by(name)) for name in names},
        "canaries": canaries,  # of a function nothing else tells whether it is the same
        "plan": {name: value for name, value in asdict(plan).items() if name != "progress"},
        **further,
        "targets": {str(k): _identity(slide, crop) for k, slide in enumerate(targets)},
        "training": {str(k): _identity(slide, crop) for k, slide in enumerate(training)},
        "versions": {name: version(name) for name in ("sq-imputer", "torch")},
    }


def _identity(slide: Slide, crop: CropSpec) -> dict:
    """Section, places, image and targets in few words; of the image, what a model sees of some rows."""
    some = np.unique(np.linspace(0, len(slide) - 1, N_LOOKS).astype(int))
    mpp = float(slide.frame.pixel.mpp)
    measured = {} if slide.expression is None else {"expression": _hash(slide.expression)}
    return {
        "section": slide.section,
        "group": slide.group,
        "rows": len(slide),
        "names": _hash(np.array(list(map(str, slide.names)), dtype=str)),
        "places": {ALIKE: summary(np.hstack([slide.centers_px * mpp, slide.xy_um]))},
        "mpp": {ALIKE: [mpp]},
        "resolution": {ALIKE: [slide.frame.resolution or 0.0]},
        "image": _hash(slide.crops(crop)[some]),
        "pixels": slide.frame.pyramid.fingerprint,
        "measured": slide.fingerprint,
        **measured,
    }


def _hash(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def _reading_order(predictor: Predictor, slide: Slide, rows: np.ndarray) -> np.ndarray:
    """Rows that share chunks of the image follow each other, where a model reads the image itself."""
    if predictor.needs.encoders:
        return rows
    order = slide.crops(predictor.needs.crop).order
    return order[np.isin(order, rows)]


def _arrays(prediction: Prediction) -> dict[str, np.ndarray]:
    parts = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
    return {name: part.numpy() for name, part in parts.items() if part is not None}


def _prediction(part: dict[str, np.ndarray]) -> Prediction:
    import torch

    return Prediction(**{name: torch.from_numpy(values) for name, values in part.items()})


def _gathered(parts: Sequence[dict[str, np.ndarray]], index: Sequence[np.ndarray]) -> Prediction:
    import torch

    return Prediction.gather([_prediction(part) for part in parts], [torch.from_numpy(rows) for rows in index])
