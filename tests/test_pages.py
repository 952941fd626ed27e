"""Every block of Python in the documentation runs, page by page and in order, on toy tissue in place of what it names.

A page begins with what it speaks of (:func:`given`) and nothing else. README and the page on one's own data have
tests of their own, which use the defaults and real files. What needs weights, or a cluster, is named with its reason.
"""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from defaults import with_defaults
from documents import DOCS, PAGES, blocks_of
from quick_zarr import *  # noqa: F403

import sq_imputer as sqi

ELSEWHERE = {
    "howto/own_data.md": "tests/test_own_data.py",
    "extending.md": "tests/test_docs.py",
    "concepts/genes.md": "tests/genes/test_page.py",
}
NOT_RUN = {  # number of the block on its page, and why
    ("encoders.md", 0): "weights of UNI",
    ("encoders.md", 1): "weights of Midnight",
    ("encoders.md", 3): "weights of UNI",
    ("models_of_others.md", 0): "weights of DeepSpot-M and STPath",
    ("encoders.md", 2): "weights of a vision transformer",
    ("concepts/microns.md", 1): "an image that is turned; tests/pp/test_straighten.py",
    ("howto/cluster.md", 0): "a scheduler of dask; tests/runs runs a local one",
    ("howto/cluster.md", 3): "SLURM",
    ("howto/datasets.md", 0): "the published files; tests/datasets reads such",
    ("concepts/resolution.md", 2): "three fits; tests/predictor/test_resolutions.py",
}


WITH_BLOCKS = [str(page.relative_to(DOCS)) for page in PAGES if blocks_of(page)]  # those of models: tests/test_docs.py


@pytest.fixture(scope="module")
def tissue(tmp_path_factory) -> Path:
    """A folder with the stores and files that pages name: sections, a slide of cells, a fitted model, gene sets."""
    folder = tmp_path_factory.mktemp("pages")
    sections = sqi.datasets.toy(4, size_px=520, mpp=1.25, n_genes=30, seed=11)
    own = sections["P4"]
    own.tables["table"].obsm["cell2location"] = parts_of(own)
    own.shapes["cells"] = own.shapes["spots"].iloc[:12]
    for name, sdata in sections.items():
        sdata.tables["table"].obs["label"] = pd.Categorical(few_or_many(sdata))
        sdata.write(folder / f"{'section' if sdata is own else name}.zarr")
    own.subset(["he", "cells"]).write(folder / "slide.zarr")
    small = sqi.get_model("ridge").Config(size_px=32, context_um=())
    sqi.tl.fit(sections["P1"], "ridge", genes=8, config=small).save(folder / "model_folder")
    names = list(sections["P1"].tables["table"].var_names)
    sets = [[kind, "", *[gene for gene in names if gene.startswith(kind)], "ERBB2"] for kind in ("NUC", "GLD", "STR")]
    (folder / "GO_Biological_Process.gmt").write_text("\n".join("\t".join(row) for row in sets))
    sets = [["IMMUNE", "", *names[3::6], "CD274", "TP53"], ["KEEPING", "", *names[5::6], "TP53"]]
    (folder / "h.all.symbols.gmt").write_text("\n".join("\t".join(row) for row in sets))
    head = "#GeneID\tSymbol\tSynonyms\tdbXrefs\tchromosome\tdescription\tOther_designations"
    rows = [f"{k}\t{name}\t-\t-\t{1 + k % 8}\tgene {name}\t-" for k, name in enumerate([*names, "ERBB2", "CD274"])]
    rows.append("7157\tTP53\tP53|LFS1\tEnsembl:ENSG00000141510\t17\ttumor protein p53\t-")
    (folder / "Homo_sapiens.gene_info.gz").write_bytes(gzip.compress("\n".join([head, *rows]).encode()))
    return folder


def few_or_many(sdata) -> np.ndarray:
    nuclei = sdata.tables["table"].obs["nuclei"]
    return np.where(nuclei > nuclei.median(), "many", "few")


def parts_of(sdata) -> pd.DataFrame:
    parts = sdata.tables["table"].obs[["glands", "stroma"]].clip(0.05, 1)
    return parts.div(parts.sum(axis=1), axis=0)


@pytest.fixture
def small_models(monkeypatch):
    """Models of a name have the settings of their `Config.small()` by default, and are hardly trained."""
    hardly = {"epochs": 2, "steps": 5, "members": 1}
    for name in ("ridge", "mlp", "stem", "bilinear"):
        small = vars(sqi.get_model(name).Config.small())
        with_defaults(monkeypatch, name, small | {field: n for field, n in hardly.items() if field in small})


def given(page: str, folder: Path) -> dict:
    """What a page of concepts speaks of as if it were there; how-to pages are whole by themselves."""
    if page.startswith("howto") or page == "api.md":
        return {}
    from sq_imputer import GeneKnowledge, bench

    read = {name: sqi.io.read_zarr(folder / f"{name}.zarr") for name in ("P1", "P2", "P3", "section")}
    sdata = read.pop("section")
    if page in PREDICTED:
        sqi.tl.predict(sdata, "ridge", genes=8, n_folds=2)
    sections, other = {name: read[name] for name in ("P1", "P2")}, read["P3"]
    slides = [sqi.Slide.from_sdata(section, section=name) for name, section in read.items()]
    ridge, bilinear = sqi.get_model("ridge"), sqi.get_model("bilinear")
    knowledge = GeneKnowledge.from_gene_sets([folder / "h.all.symbols.gmt"], name="h")
    known = {"sqi": sqi, "bench": bench, "sdata": sdata, "sections": sections, "slides": slides, "bilinear": bilinear}
    known |= dict.fromkeys(("references", "labelled"), sections) | {"knowledge": knowledge, "network": network()}
    known |= dict.fromkeys(("sdata_b", "unlabelled", "stained_only"), other) | {"normalize": lambda x: x / 255.0}
    known |= {"sdata_a": read["P1"], "c2": read["P1"], "c3": read["P2"], "genes": ["NUC1", "GLD1", "STR1", "LYM1"]}
    return known | {"cases": bench.leave_one_out(slides), "models": {"ridge": ridge()}}


def network():
    """A network of the user's own that takes pictures as they are."""
    import torch

    class Colors(torch.nn.Module):
        def forward(self, crops):
            return crops.float().flatten(2).mean(dim=2)

    return Colors()


PREDICTED = ("concepts/predictability.md", "slots.md")  # they speak of a table that is there
TOY = {  # genes that toy tissue has, and crops of few pixels
    "concepts/sections.md": {"FASN": "NUC1"},
    "concepts/trust.md": {"ERBB2": "NUC1"},
    "encoders.md": {"size_px=224": "size_px=64"},
}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in WITH_BLOCKS if page not in ELSEWHERE])
@pytest.mark.filterwarnings("ignore::UserWarning")  # of tissue as small as this, and of models that want a GPU
@pytest.mark.usefixtures("small_models")
def test_the_blocks_of_a_page_run_in_order(page, tissue, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(tissue, tmp_path / "here"))
    there = given(page, Path())
    for number, block in enumerate(blocks_of(DOCS / page)):
        for name, other in TOY.get(page, {}).items():
            block = block.replace(name, other)
        code = compile(block, f"{page}, block {number}", "exec")
        if (page, number) not in NOT_RUN:
            exec(code, there)


def test_what_is_not_run_is_there():
    assert all(len(blocks_of(DOCS / page)) > number for page, number in NOT_RUN)
    assert all((DOCS / page).exists() and (DOCS.parent / where).exists() for page, where in ELSEWHERE.items())
