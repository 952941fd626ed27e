"""The examples in the docstrings of verbs, in the order in which a user would come to them, on one toy object."""

from __future__ import annotations

import doctest
import inspect

import matplotlib.pyplot as plt
import pytest
from defaults import SMALL_CROPS, with_defaults
from dna import small_config, windows_of
from spatialdata.transformations import Affine, set_transformation

import sq_imputer as sqi

ORDER = {
    sqi.pp: ("pixel_size", "quality", "crops", "tissue", "grid", "embed", "straighten", "alignment"),
    sqi.tl: (
        *("fit", "predict", "score", "correct", "trust", "domains", "agreement", "explain", "retrieved"),
        *("sequence_prior", "regulatory_map", "in_silico"),
    ),
    sqi.bench: (
        *(
            "leave_one_out",
            "run",
            "leave_genes_out",
            "compare",
            "latent",
            "pairs",
            "contrast",
            "retrieval",
            "over_sections",
            "expression_probe",
        ),
        *(
            "audit",
            "batch_table",
            "label_probe",
            "published_split",
            "protocol",
            "read_pairs",
            "run_config",
            "scores_of",
        ),
    ),
    sqi.pl: (
        "compare",
        "domains",
        "explain",
        "genes_correlation",
        "interactive",
        "skill",
        "leaderboard",
        "quality",
        "alignment",
        "trust",
        "uncertainty",
        "regulatory_map",
        "zero_shot",
        "history",
    ),
}


@pytest.fixture
def known(tmp_path, monkeypatch) -> dict:
    """What the examples take as given. Models are small, since each of them is fitted."""
    monkeypatch.chdir(tmp_path)
    for name, changes in {"ridge": SMALL_CROPS, "mclstexp": {}}.items():
        with_defaults(monkeypatch, name, vars(sqi.get_model(name).Config.small()) | changes)
    sections = list(sqi.datasets.toy(3, size_px=512, mpp=1.25, spots=30).values())
    for number, section in enumerate(sections):
        section.tables["table"].obs["patient"] = f"P{number}"
    sdata = sections.pop()
    sheared = sqi.datasets.toy(1, size_px=256, mpp=1.25, spots=4)["P1"]
    name = next(iter(sheared.images))
    sheared.images["image"] = sheared.images.pop(name)
    bent = Affine([[1, 0.3, 0], [0, 1, 0], [0, 0, 1]], ("x", "y"), ("x", "y"))
    set_transformation(sheared.images["image"], bent, "global")
    spots = list(sdata.tables["table"].obs_names)
    known = {"sqi": sqi, "sdata": sdata, "sections": sections, "sheared": sheared, "spots": spots}
    return known | {"windows": windows_of(sdata), "small_dna": small_config()}


@pytest.mark.filterwarnings("ignore:.*chance:UserWarning")  # of a small model on little tissue
def test_every_verb_has_an_example_and_all_run_in_order(known):
    for room, names in ORDER.items():
        public = {name for name in room.__all__ if inspect.isfunction(getattr(room, name))}
        assert public - set(names) <= {"strips_of", "outcomes"}
        for name in names:
            found = doctest.DocTestParser().get_doctest(getattr(room, name).__doc__, known, name, None, 0)
            assert found.examples, f"{room.__name__}.{name} has no example"
            found.globs = known
            failed = doctest.DocTestRunner(verbose=False).run(found, clear_globs=False)
            assert not failed.failed, name
            plt.close("all")
