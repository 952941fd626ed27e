"""What keeps the package small and quick to import, read from its source."""

from __future__ import annotations

import ast
import html
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import sq_imputer

SRC = Path(sq_imputer.__file__).parent
TEXTS = {str(path.relative_to(SRC)): path.read_text(encoding="utf-8") for path in sorted(SRC.rglob("*.py"))}
TREES = {name: ast.parse(text) for name, text in TEXTS.items()}

# The rooms from the ground up, as the house stands: a room imports rooms of lower floors, and none beside it.
FLOORS = [
    {"errors"},
    {"surroundings", "ranges", "target"},
    {"needs"},
    {"progress", "device", "contract", "untrusted", "places"},
    {"nn", "scores", "store", "pixels", "genes"},
    {"encoders"},
    {"predictor"},
    {"section"},
    {"models", "explain", "external"},
    {"bench", "runs"},
    {"pp", "tl", "pl"},
    {"io"},
    {"datasets"},
    {"testing", "widget", "_demo", "report"},
    {"cli"},
    {"__main__"},
]
HEAVY = {
    "torch",
    "timm",
    "torchvision",
    "diffusers",
    "squidpy",
    "scanpy",
    "napari",
    "qtpy",
    "spatialdata",
    "matplotlib",
    "bokeh",
}
# What runs code from a file, or writes where an archive says; matched against modules, calls, keywords and attributes.
BANNED = {
    r"import (pickle|cPickle|_pickle|dill|cloudpickle|joblib|shelve|marshal|tarfile|torch\.hub)\b.*": "runs code",
    r".*\.(read_pickle|to_pickle)": "pickle runs code",
    r"(import )?torch\.load": "safetensors only",
    r"torch\.hub\b.*": "runs code from a download",
    r"eval|exec|compile|__import__": "runs code",
    r"os\.(system|popen|exec\w+|spawn\w+)|subprocess\.getoutput|.*\bshell=True": "runs a shell",
    r"yaml\.(load|load_all|full_load|unsafe_load)": "YAML can run code",
    r".*\.(extractall|extract|unpack_archive)": "archives can write anywhere",
    r".*\b(allow_pickle|trust_remote_code)=.*": "runs code",
    r".*\bweights_only=False": "runs code",
    r".*\bload_state_dict strict=False": "weights must fit",
    r"(.*\.)?MAX_IMAGE_PIXELS": "the limit is everybody's",
}
ALLOWED = {
    ("predictor/train.py", "predictor.load_state_dict strict=False"),  # buffers of calibrate, a part of the state
    ("store/workers.py", "import cloudpickle"),  # of a task, which dask sends so: no file is read
    ("testing/_encoder.py", "import pickle"),  # of bytes that it made itself: no file is read
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def module_of(name: str) -> str:
    """The module in a file: "sq_imputer.tl" in tl/__init__.py."""
    parts = Path(name).with_suffix("").parts
    return ".".join(["sq_imputer", *parts]).removesuffix(".__init__")


def room(module: str) -> str:
    """The room of a module: "section" of "sq_imputer.section.slide"."""
    return (module.split(".") + ["sq_imputer"])[1]


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules imported anywhere in a file, `from package import module` resolved to the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = SRC.parent / f"{node.module}.{alias.name}".replace(".", "/")
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def own_imports(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Which modules of the package each one imports; what only a type checker sees counts as well."""
    found = {module_of(name): set(imports(tree)) for name, tree in trees.items()}
    return {name: {other for other in others if other.split(".")[0] == "sq_imputer"} for name, others in found.items()}


def upward(graph: dict[str, set[str]]) -> list[str]:
    """The imports that lead to a room on the same floor or on a higher one; the package itself may import all."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names} | {"sq_imputer": len(FLOORS)}
    arrows = [(one, other) for one in graph for other in sorted(graph[one])]
    arrows = [(one, other) for one, other in arrows if room(one) not in ("sq_imputer", room(other))]
    top = {"_demo", "cli"}  # they use the package as a user does, by its own name
    wrong = [(one, other) for one, other in arrows if floor[room(other)] >= floor[room(one)]]
    return [f"{one} imports {other}" for one, other in wrong if not (other == "sq_imputer" and room(one) in top)]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, or none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_rooms_import_only_what_lies_below_them():
    graph = own_imports(TREES)
    assert {room(name) for name in graph} - {"sq_imputer"} <= set().union(*FLOORS), "say in FLOORS where a room stands"
    assert not upward(graph)


def test_no_modules_import_each_other_in_a_circle():
    assert not circle(own_imports(TREES))


@pytest.mark.parametrize(
    "line",
    ["import sq_imputer.predictor.base", "if TYPE_CHECKING:\n    from sq_imputer.predictor.base import Predictor"],
)
def test_a_planted_circle_is_found(line):
    planted = TREES | {"predictor/registry.py": ast.parse(f"{TEXTS['predictor/registry.py']}\n{line}\n")}
    assert {"sq_imputer.predictor.base", "sq_imputer.predictor.registry"} <= set(circle(own_imports(planted)))


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("pixels/crops.py", "from sq_imputer.section.slide import Slide"),
        ("section/slide.py", "from sq_imputer.models import ridge"),
        ("tl/_fit.py", "from sq_imputer.pl._compare import compare"),
        ("contract.py", "if TYPE_CHECKING:\n    from sq_imputer import Predictor"),
    ],
)
def test_a_planted_arrow_up_or_sideways_is_found(file, line):
    planted = TREES | {file: ast.parse(f"{TEXTS[file]}\n{line}\n")}
    assert len(upward(own_imports(planted))) == 1


@pytest.mark.parametrize("folder", ["nn", "models"])
def test_models_and_their_blocks_know_tensors_only(folder):
    for name in (name for name in TREES if name.startswith(f"{folder}/")):
        found = {module.split(".")[0] for module in imports(TREES[name])}
        assert not found & {"spatialdata", "anndata", "zarr", "dask", "squidpy", "scanpy"}, name


def test_models_do_not_import_each_other():
    for name in (name for name in TREES if name.startswith("models/") and "/_" not in name):
        models = {module for module in imports(TREES[name]) if module.startswith("sq_imputer.models.")}
        assert models <= {"sq_imputer.predictor.base"}, name


def test_one_file_writes_into_spatialdata():
    """By way of one that knows the disk: store/commit.py puts in what store/write.py makes."""
    calls = re.compile(r"\bsdata\.write\w*|.*consolidate\w*_metadata|.*renameat2|os\.rename")
    slots = re.compile(r"\bsdata\.(tables|shapes|images)\[.+\]")
    writers = set()
    for name, tree in TREES.items():
        called = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assigned = [ast.unparse(t) for node in ast.walk(tree) if isinstance(node, ast.Assign) for t in node.targets]
        if any(map(calls.fullmatch, called)) or any(map(slots.fullmatch, assigned)):
            writers.add(name)
    assert writers == {"store/write.py", "store/commit.py"}


def test_files_stay_readable():
    lengths = {name: len(text.splitlines()) for name, text in TEXTS.items()}
    assert not {name: length for name, length in lengths.items() if length > 400}


def test_functions_stay_short():
    long = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                long += [f"{name}: {node.name} has {lines} lines"] if lines > 40 else []
    assert not long


def deeds(tree: ast.AST) -> Iterator[str]:
    """What a file imports, calls, passes by keyword and names, as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"import {alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"import {node.module}.{alias.name}" for alias in node.names)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            yield ast.unparse(node.func)
            yield from (f"{ast.unparse(node.func)} {ast.unparse(keyword)}" for keyword in node.keywords if keyword.arg)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)


def dangers(tree: ast.AST) -> dict[str, str]:
    """What is banned of what a file does, and why."""
    return {deed: why for deed in deeds(tree) for banned, why in BANNED.items() if re.fullmatch(banned, deed)}


def test_nothing_dangerous_is_called():
    found = {(name, deed): why for name, tree in TREES.items() for deed, why in dangers(tree).items()}
    assert found.keys() == ALLOWED


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import torch; torch.load('x', weights_only=True)",
        "from torch import load",
        "import torch.hub",
        "torch.hub.load('a', 'b')",
        "from torch.hub import load",
        "import joblib",
        "np.load('x', allow_pickle=True)",
        "pd.read_pickle('x')",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "import tarfile",
        "zipfile.ZipFile('x').extractall()",
        "shutil.unpack_archive('x')",
        "eval('1')",
        "exec('1')",
        "yaml.load(text)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "Image.MAX_IMAGE_PIXELS = None",
        "PIL.Image.MAX_IMAGE_PIXELS = None",
        "model.load_state_dict(state, strict=False)",
    ],
)
def test_what_is_dangerous_is_found(code):
    assert dangers(ast.parse(code))


def test_what_only_sounds_dangerous_is_not():
    assert not dangers(ast.parse("model.eval(); re.compile('x'); json.load(file); model.compile(); read.extracts(1)"))


def test_no_error_is_swallowed():
    hidden = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
                silent = all(isinstance(line, ast.Pass) for line in node.body)
                hidden += [f"{name}:{node.lineno}"] if broad and silent else []
    assert not hidden


def public(tree: ast.Module) -> Iterator[ast.AST]:
    """Public functions and classes of a file, and the public methods of these."""
    for node in tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (n for n in node.body if isinstance(n, FUNCTIONS) and not n.name.startswith("_"))


def test_everything_public_says_what_it_does():
    inherited = {"forward", "loss", "predict_step", "build", "needs", "optimize", "optimizer"}  # said in the base class
    silent = []
    for name, tree in TREES.items():
        silent += [f"{name}: {n.name}" for n in public(tree) if not ast.get_docstring(n) and n.name not in inherited]
    assert not silent


def loaded_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after running some code."""
    tail = "; import sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    result = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code", ["import sq_imputer", "import sq_imputer as sqi; sqi.list_models(); dir(sqi); sqi.widget.open"]
)
def test_importing_and_listing_models_loads_nothing_heavy(code):
    assert not loaded_after(code) & HEAVY


def test_listing_encoders_loads_no_torch():
    assert not loaded_after("from sq_imputer.encoders import list_encoders; list_encoders()") & {"torch", "timm"}


def test_every_public_name_resolves():
    for name in sq_imputer.__all__:
        assert getattr(sq_imputer, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'stem'"):
        _ = sq_imputer.stem


def test_the_picture_of_the_rooms_is_of_these_imports(monkeypatch):
    docs = Path(__file__).parent.parent / "docs"
    monkeypatch.syspath_prepend(docs)
    import rooms

    assert html.escape(rooms.listing()) in rooms.PICTURE.read_text(encoding="utf-8"), "run python docs/rooms.py"


def test_every_source_file_has_a_test_file():
    tests = Path(__file__).parent
    sources = [Path(name) for name in TEXTS if not Path(name).name.startswith("_")]
    missing = [str(name) for name in sources if not (tests / name).with_name(f"test_{name.name}").exists()]
    assert not missing
