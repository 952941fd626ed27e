"""Sections and models in every form that verbs accept."""

from __future__ import annotations

import pytest

import sq_imputer as sqi
from sq_imputer.runs.sections import pick_genes, read_sections, records, resolve_model
from sq_imputer.section.slide import Slide


def test_sections_are_named_by_the_dict_else_by_themselves(patients):
    assert [slide.section for slide in read_sections({"a": patients["P1"], "b": patients["P2"]}, {})] == ["a", "b"]
    assert [slide.section for slide in read_sections(list(patients.values()), {})] == ["P1", "P2", "P3"]
    assert [slide.section for slide in read_sections(patients["P2"], {})] == ["P2"]


def test_slides_are_passed_on_as_they_are(section):
    slide = Slide.from_sdata(section)
    first, second = read_sections([slide, section], {})
    assert first._features is slide._features and first.encoders is second.encoders


def test_keys_reach_every_section(patients):
    with pytest.warns(UserWarning, match="mpp=0.5 is taken for image 'he', and no source says so"):
        slides = read_sections(patients, {"mpp": 0.5})
    assert [slide.frame.pixel.mpp for slide in slides] == [0.5] * 3


def test_a_reference_is_read_where_it_was_measured(section):
    sqi.pp.grid(section, spacing_um=150)
    keys = {"shapes_key": "grid"}
    assert read_sections(section, keys)[0].keys["shapes_key"] == "grid"
    assert read_sections(section, keys, reference=True)[0].keys["shapes_key"] == "spots"


@pytest.mark.parametrize("sections", [[], {}])
def test_no_section_is_an_error(sections):
    with pytest.raises(sqi.BadInput, match="no sections"):
        read_sections(sections, {})


@pytest.mark.parametrize("sections", ["store.zarr", ["store.zarr"], {"a": 3}])
def test_what_is_no_section_is_named(sections):
    with pytest.raises(sqi.BadInput, match="a section is a (str|int); expected SpatialData"):
        read_sections(sections, {})


def test_genes_by_name_keep_their_order(section):
    slides = read_sections(section, {})
    assert pick_genes(slides, ("STR1", "NUC1")) == ["STR1", "NUC1"]
    assert len(pick_genes(slides, 4)) == 4


def test_a_model_by_name_has_the_defaults_and_what_differs_from_them():
    assert resolve_model("nsl").config == sqi.get_model("nsl").Config()
    assert resolve_model("nsl", {"size_px": 8}).config == sqi.get_model("nsl").Config(size_px=8)
    assert not resolve_model("nsl").fitted


def test_a_folder_that_is_named_like_a_model_is_reached_by_its_path(section, spy, genes, tmp_path, monkeypatch):
    sqi.tl.fit(section, "spy", genes=genes).save(tmp_path / "spy")
    monkeypatch.chdir(tmp_path)
    assert not resolve_model("spy").fitted
    assert resolve_model("./spy").fitted and resolve_model(tmp_path / "spy").fitted


def test_records_are_those_of_predictions_only(section, spy, genes):
    sqi.pp.embed(section, spec=sqi.CropSpec(100.0, 32))
    assert records(section.tables["table"]) == {}
    sqi.tl.predict(section, "spy", genes=genes, n_folds=3)
    found = records(section.tables["imputed"])
    assert list(found) == ["spy"] and found["spy"]["genes"] == genes
