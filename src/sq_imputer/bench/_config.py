"""A benchmark as a file: what is run on which sections, so that somebody else can run it again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path

from sq_imputer.bench._contrasts import Contrast
from sq_imputer.bench._probes import PROBES
from sq_imputer.bench._protocols import TASKS, protocol
from sq_imputer.bench._splits import published_split
from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.knowledge import GeneKnowledge
from sq_imputer.genes.units import LOG1P_CP10K
from sq_imputer.predictor.config import of_mapping, thaw
from sq_imputer.predictor.registry import get_model

MOST = 2**20  # bytes of a config


@dataclass(frozen=True)
class BenchConfig:
    """What a benchmark runs; written as YAML, with the names of these fields.

    Parameters
    ----------
    protocol
        By name (:func:`sq_imputer.bench.protocol`).
    sections
        Stores by name of the section; paths count from the file.
    models
        Registered predictors by the name they get in the table, with the fields of their `Config` and, where it is
        another name than the registered one, `model`.
    encoders
        Image encoders of the tasks on pairs.
    contrasts
        Contrasts by name, with the fields of :class:`sq_imputer.bench.Contrast`.
    tasks, n_genes, probe
        Instead of the protocol's.
    split
        Names of sections by `train`, `val` and `test`, a list of such splits, or the name of a published one.
    seeds
        Every task is run once with each.
    extent_um, size_px
        Crops of the tasks on pairs.
    unit
        Of expression.
    allow
        Overlaps of training and test that are meant (:func:`sq_imputer.bench.audit`).
    exclude_um
        Of the task of retrieval.
    knowledge
        Files of what is known of genes, for models that are asked for genes that they were not fitted on: arrays
        (`.npz`, with `names` and `vectors`), gene sets (`.gmt`), or NCBI's gene_info; several are put side by side.
    chromosomes
        A gene_info file: genes of a chromosome are left out together.
    weights
        Safetensors files of encoders, by their name; paths count from the file.
    latent
        Name in `obsm` of what another encoder says of the expression, such as `X_scVI`, for contrasts with
        `genes: latent` (:func:`sq_imputer.bench.latent`).
    scib
        Add numbers of scib-metrics to the task of batch effects (:func:`sq_imputer.bench.batch_table`).
    device
        Where it runs.
    keys
        Where to find image, shapes and counts in the stores, as :meth:`sq_imputer.Slide.from_sdata` takes them.
    """

    protocol: str
    sections: dict[str, str]
    models: dict[str, dict] = field(default_factory=dict)
    encoders: tuple[str, ...] = ("texture",)
    contrasts: dict[str, dict] = field(default_factory=lambda: {"clip": {}})
    tasks: tuple[str, ...] = ()
    n_genes: int = 0
    probe: str = ""
    split: dict | list | str | None = None
    seeds: tuple[int, ...] = (0,)
    extent_um: float = 112.0
    size_px: int = 224
    unit: str = LOG1P_CP10K
    allow: tuple[str, ...] = ()
    exclude_um: float = 0.0
    knowledge: tuple[str, ...] = ()
    chromosomes: str = ""
    weights: dict[str, str] = field(default_factory=dict)
    latent: str = ""
    scib: bool = False
    device: str = "auto"
    keys: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        how = protocol(self.protocol)
        strange = [task for task in self.tasks if task not in TASKS]
        if strange or (self.probe and self.probe not in PROBES):
            raise BadInput(
                f"tasks are {listed(TASKS)} and probes {listed(PROBES)}; got {listed(strange)} {self.probe}."
            )
        if not all(isinstance(one, dict) for one in self.parts or ()):
            raise BadInput(f"split is {self.split!r}; expected such as {{train: [A], test: [B]}}, or a list of such.")
        tasks = self.tasks or how.tasks
        if "zero_shot" in tasks and not self.knowledge:
            raise BadInput(
                "genes that were not measured are asked for by what is known of them; say knowledge: [FILE]."
            )
        if {"models", "zero_shot"} & set(tasks) and not self.models:
            raise BadInput(f"protocol '{self.protocol}' scores models; name some, such as models: {{ridge: {{}}}}.")
        for name in self.models:
            self.model(name)
        for name in self.contrasts:
            if self.contrast(name).genes == "latent" and not self.latent:
                raise BadInput(f"contrast '{name}' has genes: latent; say which, such as latent: X_scVI.")

    @classmethod
    def read(cls, path: str | Path) -> BenchConfig:
        """The config in a YAML file; stores that it names count from its folder.

        Raises
        ------
        MissingKey
            If there is no such file.
        BadInput
            If it is no YAML, or names a field that there is not.
        """
        import yaml

        path = Path(path)
        if not path.is_file() or path.stat().st_size > MOST:
            raise MissingKey(f"no config '{path}', or one of more than {MOST} bytes; pass a YAML file.")
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadInput(f"'{path}' is no YAML: {error}.") from error
        if not isinstance(found, dict):
            raise BadInput(f"'{path}' holds a {type(found).__name__}; expected fields such as protocol: hescape.")
        known = [one.name for one in fields(cls)]
        for name in found:
            if name not in known:
                near = get_close_matches(str(name), known, 1)
                raise BadInput(f"'{path}' names '{name}'; fields are {listed(near or known, 20)}.")
        lost = [name for name in ("protocol", "sections") if name not in found]
        if lost:
            raise BadInput(f"'{path}' lacks {listed(lost)}.")
        config = thaw(cls, found)
        folder = path.resolve().parent  # a copy elsewhere names the same stores
        sections, weights = (
            {name: str(folder / path) for name, path in part.items()} for part in (config.sections, config.weights)
        )
        knowledge = tuple(str(folder / path) for path in config.knowledge)
        chromosomes = config.chromosomes and str(folder / config.chromosomes)
        return replace(config, sections=sections, weights=weights, knowledge=knowledge, chromosomes=chromosomes)

    def model(self, name: str, *knowledge: GeneKnowledge):
        """A predictor of the table, not fitted, with what it is told of genes."""
        values = dict(self.models[name] or {})
        model = get_model(values.pop("model", name))
        return model(of_mapping(model.Config, values, model.card.name), *knowledge)

    def known(self) -> GeneKnowledge:
        """What is known of genes, of all files."""
        parts = [_read_knowledge(Path(path)) for path in self.knowledge]
        return parts[0] if len(parts) == 1 else GeneKnowledge.concat(parts)

    @property
    def files(self) -> list[str]:
        """Files that decide the numbers, beside the sections."""
        return [*self.weights.values(), *self.knowledge, *filter(None, [self.chromosomes])]

    def contrast(self, name: str) -> Contrast:
        """A contrast by name."""
        return of_mapping(Contrast, self.contrasts[name] or {}, "contrast")

    @property
    def parts(self) -> list[dict] | None:
        """The splits, that of a published name included."""
        split = published_split(self.split) if isinstance(self.split, str) else self.split
        return [split] if isinstance(split, dict) else split

    @property
    def identity(self) -> str:
        """Of all that decides the numbers: where the same is asked, the same is found."""
        known = {name: value for name, value in asdict(self).items() if name not in ("seeds", "device")}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]

    def write(self, path: Path) -> None:
        """As YAML."""
        import yaml

        held = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items() if v not in (None, "")}
        path.write_text(yaml.safe_dump(held, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _read_knowledge(path: Path) -> GeneKnowledge:
    if path.suffix == ".npz":
        return GeneKnowledge.from_npz(path, name=path.stem)
    if path.suffix == ".gmt":
        return GeneKnowledge.from_gene_sets(path, name=path.stem)
    return GeneKnowledge.from_gene_info(path)
