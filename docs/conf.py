"""Sphinx configuration. DOCS_OFFLINE=1 builds without the network: other projects' names are then not linked."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

warnings.filterwarnings("ignore", message=r".*_RstSnippetParser")  # one line per type, from sphinx_autodoc_typehints

project = "sq_imputer"
author = "the sq_imputer developers"
copyright = f"{datetime.now(UTC):%Y}, {author}"
version = release = installed("sq-imputer")

extensions = [
    "contract",
    "model_pages",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
html_theme = "sphinx_book_theme"
html_title = project
html_theme_options = {"navbar_persistent": []}  # the search is in the sidebar
html_static_path, html_css_files = ["_theme"], ["pages.css"]

autosummary_generate = True
autodoc_member_order = "bysource"
default_role = "code"  # docstrings name arguments in single backticks
napoleon_numpy_docstring, napoleon_google_docstring = True, False
napoleon_use_rtype = True
typehints_defaults = "comma"
typehints_document_rtype_none = False
always_use_bars_union = True
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Notebooks are stored without outputs and run by every build; one that fails fails the build.
shutil.rmtree(HERE / "tutorials", ignore_errors=True)
shutil.copytree(HERE.parent / "tutorials", HERE / "tutorials", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
os.environ.pop("MPLBACKEND", None)  # a kernel that inherits another backend draws nothing into the page
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_output_stderr = "remove"  # progress and the warnings of other packages

# A name of ours that does not resolve is an error; names of others are links where their inventories can be had.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!sq_imputer\b).*"),
    (
        "py:class",
        r"sq_imputer\.(section\.counts\.Counts|section\.looks\.Looks|encoders\._shelf\.Shelf|store\.workers\.Workers"
        r"|contract\.Marks|contract\.WholeSlide|genes\.knowledge\.Aligned|section\.maps\.OwnNuclei"
        r"|genes\.cut\.Loci|genes\.cut\.Sequences|genes\.genome\.Genome|pl\._browser\.Comparison)",
    ),  # of no page
]
intersphinx_mapping = (
    {}
    if os.environ.get("DOCS_OFFLINE")
    else {
        "anndata": ("https://anndata.readthedocs.io/en/stable", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "pandas": ("https://pandas.pydata.org/docs", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable", None),
        "spatialdata": ("https://spatialdata.scverse.org/en/stable", None),
        "squidpy": ("https://squidpy.readthedocs.io/en/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }
)


def _see_pictures(app, error) -> None:
    """A gallery that shows no picture is an error, as it is where a kernel draws elsewhere."""
    page = Path(app.outdir, "tutorials", "gallery.html")
    if error is None and nb_execution_mode == app.config.nb_execution_mode and page.exists():
        n = page.read_text(encoding="utf-8").count("cell_output")
        if n < 10:
            raise RuntimeError(f"the gallery shows {n} outputs; its code draws more than ten pictures")


def setup(app) -> None:
    """Look at the built gallery."""
    app.connect("build-finished", _see_pictures)
