"""The folder of a fitted model, JSON and safetensors: written at once or not at all, read so that nothing in it runs.

The weights are named after their content and written first; `model.json`, which names them, replaces the one before
it in one step. Until then the folder holds the model before, or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args, get_origin

import numpy as np

from sq_imputer.contract import Marks, Target
from sq_imputer.errors import BadInput, MissingKey, SqImputerError, StoreError, listed
from sq_imputer.predictor.config import thaw
from sq_imputer.predictor.registry import get_model
from sq_imputer.predictor.resolutions import check_told, parted
from sq_imputer.scores.overlap import n_codes
from sq_imputer.store.disk import sync
from sq_imputer.surroundings import undisturbed
from sq_imputer.untrusted import MOST_JSON, misfit, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from sq_imputer.contract import Model

FORMAT = 3
SETTINGS = "model.json"
WEIGHTS = re.compile(r"weights-[0-9a-f]{16}\.safetensors")
PART = re.compile(rf"\.(?:{re.escape(SETTINGS)}|{WEIGHTS.pattern})\.[0-9a-f]{{8}}")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # no name of a gene has these; a terminal obeys them
MOST_WEIGHTS = 2**35  # bytes
SPARE = 1000  # tensors that a model may make beside those that are saved
STALE_S = 3600.0  # what is older does not belong to a save that is under way
TYPES = {
    "model": str,
    "config": dict,
    "genes": list[str],
    "unit": str,
    "sizes": dict[str, int],
    "provenance": dict,
    "history": dict,
    "training_genes": list[list[str]],
    "files": dict,
}
ROW_TYPES = {"xy_um": "float64", "codes": "int16"}
ROWS = re.compile(r"training_rows\.(\d+)\.(xy_um|codes)")  # tensors beside the weights


def load(path: str | Path) -> Model:
    """Read a fitted model from a folder written by `predictor.save(folder)`.

    Nothing in the folder is run: it names a model that is installed here, and holds numbers. Every file must have its
    sha256, every weight must be finite and of the shape that the model expects.

    Parameters
    ----------
    path
        The folder.

    Raises
    ------
    MissingKey
        If the folder, a file in it, or the model's name is not there.
    BadInput
        If the folder is damaged, changed, or of another version.
    """
    return load_as(path, get_model)


@undisturbed()
def load_as(path: str | Path, find: Callable[[str], type[Model]]) -> Model:
    """The model in a folder; `find` gives the class of a name."""
    folder = Path(path)
    settings = _settings(folder)
    model = find(settings["model"])
    try:
        config = thaw(model.Config, settings["config"])
    except SqImputerError:
        raise
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise BadInput(f"'{folder / SETTINGS}': the config of '{settings['model']}' is wrong: {error}.") from error

    [(name, said)] = settings["files"].items()
    tensors = _tensors(folder / name, said)
    rows = _training_rows(tensors, settings["training_genes"], folder)
    weights = {name: tensor for name, tensor in tensors.items() if not ROWS.fullmatch(name)}
    found = []
    for mine, own in parted(weights, settings):
        blank = partial(_blank, model, config, settings, own)
        predictor = _fill(blank, mine, folder)
        predictor.training_rows = rows
        found.append(predictor)
    found[0].coarser = tuple(found[1:])
    return found[0]


def _blank(model: type[Model], config, settings: dict, own: dict) -> Model:
    """A predictor without layers."""
    predictor = model(config)
    predictor.genes, predictor.unit, predictor.target = tuple(settings["genes"]), settings["unit"], _target(settings)
    for name, value in own.items():
        setattr(predictor, name, value)
    return predictor


def packed(weights: Mapping[str, Tensor], training_rows: Sequence[Marks]) -> bytes:
    """The file of weights, with the marks of the training rows of every section."""
    import torch
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    for k, marks in enumerate(training_rows):
        for name in ROW_TYPES:
            tensors[f"training_rows.{k}.{name}"] = torch.from_numpy(np.ascontiguousarray(getattr(marks, name)))
    return save(tensors)


def write(path: str | Path, settings: dict, weights: bytes) -> None:
    """Write a model into a folder, at once: if it is interrupted, the folder holds what it held, or nothing.

    Raises
    ------
    BadInput
        If the folder holds something that is no model.
    StoreError
        If it cannot be written, such as on a full disk.
    """
    folder, digest = Path(path), hashlib.sha256(weights).hexdigest()
    name = f"weights-{digest[:16]}.safetensors"
    settings = {"format": FORMAT} | settings | {"files": {name: {"sha256": digest, "bytes": len(weights)}}}
    text = json.dumps(settings, default=lambda value: value.item())
    text = json.dumps(sealed(json.loads(text, parse_constant=lambda _: None)), indent=1).encode()
    if len(text) > MOST_JSON:
        raise BadInput(f"{SETTINGS} would have {len(text)} bytes; at most {MOST_JSON} can be read back.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before, new = _before(folder), not (folder / name).exists()
        try:
            _put(folder / name, weights)
            _put(folder / SETTINGS, text)
        except BaseException:
            if new and not ((folder / SETTINGS).is_file() and (folder / SETTINGS).read_bytes() == text):
                (folder / name).unlink(missing_ok=True)
            raise
    except OSError as error:
        needed = (len(weights) + len(text)) / 1e6
        raise StoreError(
            f"the model could not be saved in '{folder}': {error.strerror} ({needed:.1f} MB are needed). A model that "
            "was there is unchanged, and this one is still in memory: save it elsewhere."
        ) from error
    for file in folder.iterdir():  # the weights of the model before, and what killed saves have left
        ours = (WEIGHTS.fullmatch(file.name) and file.name != name) or PART.fullmatch(file.name)
        with suppress(OSError):  # the model is saved, and another save may tidy up as well
            if ours and (file.name == before or time.time() - file.stat().st_mtime > STALE_S):
                file.unlink()


def sealed(settings: dict) -> dict:
    """Settings with the sha256 of all others in them."""
    others = {name: value for name, value in settings.items() if name != "sha256"}
    text = json.dumps(others, sort_keys=True, separators=(",", ":"))
    return others | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


def _put(path: Path, content: bytes) -> None:
    """Write a file that is complete and on the disk once it has its name."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with part.open("xb") as file:
            file.write(content)
        sync(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    sync(path.parent)


def _before(folder: Path) -> str | None:
    """Name of the weights of the model in a folder, None if it is empty."""
    try:
        files = _settings(folder)["files"]
    except MissingKey:
        strange = [p.name for p in folder.iterdir() if not (WEIGHTS.fullmatch(p.name) or PART.fullmatch(p.name))]
        if not strange:
            return None
        raise BadInput(
            f"'{folder}' holds something else: {listed(sorted(strange))}. Save the model in a folder of its own."
        ) from None
    except BadInput as error:
        raise BadInput(f"the model in '{folder}' is not replaced, since it cannot be read: {error}") from error
    return next(iter(files))


# Reading ------------------------------------------------------------------------------------------


def _settings(folder: Path) -> dict:
    """What `model.json` says, once it was checked."""
    file = folder / SETTINGS
    _check_file(file)
    settings = read_json(file, strict=True)
    again = "Save or download the model again."
    if not isinstance(settings, dict) or type(settings.get("format")) is not int:
        raise BadInput(f"'{file}' is damaged: it has no format. {again}")
    if settings["format"] != FORMAT:
        way = "Upgrade sq-imputer." if settings["format"] > FORMAT else "Fit the model and save it again."
        raise BadInput(f"'{file}' has format {settings['format']}; this version reads {FORMAT}. {way}")
    try:
        intact = settings == sealed(settings)
    except RecursionError:
        intact = False
    if not intact:
        raise BadInput(f"'{file}' does not have the sha256 that it names: it is damaged, or was changed. {again}")
    for name, kind in TYPES.items():
        if not _is(settings.get(name), kind):
            raise BadInput(f"'{file}' is damaged: '{name}' is not there, or not what it should be. {again}")
    if not check_told(settings, lambda value, name: _is(value, TYPES[name])):
        raise BadInput(f"'{file}' is damaged: 'coarser' is not what it should be. {again}")
    files, genes = list(settings["files"].items()), settings["genes"]
    if not genes or len(set(genes)) < len(genes):
        raise BadInput(f"'{file}' is damaged: 'genes' should name some, each once. {again}")
    if len(files) != 1 or not WEIGHTS.fullmatch(files[0][0]) or not _is(files[0][1], dict):
        raise BadInput(f"'{file}' is damaged: 'files' should name the weights and nothing else. {again}")
    return settings


def _target(settings: dict) -> Target:
    """What a model predicts; genes, if the folder does not say."""
    said = settings.get("target", {})
    if not _is(said, dict[str, str]) or not set(said) <= {"where", "kind"}:
        raise BadInput(f"'{SETTINGS}' is damaged: 'target' is not what it should be. Save the model again.")
    return Target(**said)


def _is(value, kind) -> bool:
    """Whether a value of JSON has a type; a name has no control characters, a number no sign."""
    origin = get_origin(kind) or kind
    if origin is list:
        return isinstance(value, list) and all(_is(item, get_args(kind)[0]) for item in value)
    if origin is dict and get_args(kind):
        return isinstance(value, dict) and all(_is(item, get_args(kind)[1]) for item in value.values())
    if origin is str:
        return isinstance(value, str) and not CONTROL.search(value)
    return type(value) is origin and (origin is not int or value >= 0)


def _check_file(file: Path) -> None:
    if file.is_symlink():
        raise BadInput(
            f"'{file}' is a link, and a folder of someone else may not lead elsewhere. Copy the file itself; downloads "
            "from the Hugging Face Hub have no links with local_dir=."
        )
    if not file.is_file():
        raise MissingKey(
            f"'{file.parent}' is no model folder: '{file.name}' not there. Give a folder written by predictor.save()."
        )


def _tensors(file: Path, said: dict) -> dict[str, Tensor]:
    """The weights in a file, which must be those that were saved."""
    from safetensors import SafetensorError
    from safetensors.torch import load as read_tensors

    _check_file(file)
    size = file.stat().st_size
    if size > MOST_WEIGHTS:
        raise BadInput(f"'{file}' has {size} bytes; at most {MOST_WEIGHTS} are read.")
    content = file.read_bytes() if size == said.get("bytes") else b""
    if hashlib.sha256(content).hexdigest() != said.get("sha256"):
        raise BadInput(
            f"'{file}' does not have the size and sha256 that {SETTINGS} names. Save or download the model again."
        )
    try:
        return read_tensors(content)
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a type that torch does not have
        raise BadInput(f"'{file}' is not safetensors: {error}. Save or download the model again.") from error


def _training_rows(tensors: dict[str, Tensor], genes: list[list[str]], folder: Path) -> tuple[Marks, ...]:
    """What the file knows of the training rows, which must be whole: without it, they would be predicted unawares."""
    found = {name: tensor for name, tensor in tensors.items() if ROWS.fullmatch(name)}
    rows = []
    for k, names in enumerate(genes):
        parts = {name: found.pop(f"training_rows.{k}.{name}", None) for name in ROW_TYPES}
        wide = {"xy_um": 2, "codes": n_codes(len(names))}
        form = {n: None if part is None else (*part.shape[1:], str(part.dtype)) for n, part in parts.items()}
        fits = form == {name: (wide[name], f"torch.{kind}") for name, kind in ROW_TYPES.items()}
        if not fits or len(parts["xy_um"]) != len(parts["codes"]) or not parts["xy_um"].isfinite().all():
            raise BadInput(f"the training rows of section {k} in '{folder}' are damaged. Fit the model again.")
        arrays = {name: part.numpy() for name, part in parts.items()}
        rows.append(Marks(tuple(names), **arrays, known=np.ones(wide["codes"], dtype=bool)))
    if found:
        raise BadInput(f"'{folder}' has training rows of {listed(found)} without genes. Fit the model again.")
    return tuple(rows)


def _fill(blank: Callable[[], Model], tensors: dict[str, Tensor], folder: Path) -> Model:
    """A model with weights, which must be finite and of its shapes. These are found without allocating anything."""
    import torch

    from sq_imputer.predictor.chance import Chance

    sketch = blank()
    try:
        with torch.device("meta"), _at_most(2 * len(tensors) + SPARE):
            sketch._register_statistics()
            sketch.build()
    except SqImputerError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise BadInput(
            f"no '{sketch.card.name}' can be made of what '{folder / SETTINGS}' says: {type(error).__name__} {error}."
        ) from error
    wrong = misfit(sketch.state_dict(), tensors)
    if wrong:
        raise BadInput(f"the weights in '{folder}' do not fit the model '{sketch.card.name}': {wrong}.")
    predictor = blank()
    predictor._register_statistics()
    with Chance(0):  # initial weights are drawn only to be replaced
        predictor.build()
    predictor.load_state_dict(tensors)
    return predictor.eval()


@contextmanager
def _at_most(n: int) -> Iterator[None]:
    """Stop a model that makes more tensors than these: a number in a file must not keep `build` busy for ever."""
    from torch.nn.modules import module

    left = iter(range(n))

    def count(*_) -> None:
        if next(left, None) is None:
            raise ValueError(f"it has more than the {n} tensors that would go with its weights")

    hooks = (
        module.register_module_parameter_registration_hook(count),
        module.register_module_buffer_registration_hook(count),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
