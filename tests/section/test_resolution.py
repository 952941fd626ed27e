"""At which resolution sections are read together, and what is refused."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale, Sequence, get_transformation

import sq_imputer as sqi
from sq_imputer.contract import CropSpec, Needs
from sq_imputer.errors import BadInput
from sq_imputer.section.resolution import common, fitting, for_model, read_at, trained
from sq_imputer.section.slide import Slide

NEEDS = Needs(CropSpec(100, 128))  # .78 µm per pixel
GENES = ["NUC1", "GLD1", "STR1"]
SMALL = {"size_px": 64, "extent_um": 48.0, "context_um": (200.0,)}


def coarse(sdata: SpatialData, times: int) -> SpatialData:
    """The section as a scanner of larger pixels sees it."""
    old = sdata["he"]
    pixels = np.moveaxis(np.asarray(old.data if hasattr(old, "data") else old["scale0"].ds["image"].data), 0, -1)
    size = [side // times for side in pixels.shape[1::-1]]
    small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    step = Scale([times, times], axes=("x", "y"))
    places = {name: Sequence([step, one]) for name, one in get_transformation(old, get_all=True).items()}
    image = Image2DModel.parse(np.moveaxis(small, -1, 0), dims=("c", "y", "x"), transformations=places)
    return SpatialData(images={"he": image}, shapes=dict(sdata.shapes), tables=dict(sdata.tables), attrs=sdata.attrs)


@pytest.fixture(scope="module")
def sections() -> dict[str, SpatialData]:
    """Two patients at .75 µm per pixel, and the second at 3."""
    found = sqi.datasets.toy(2, size_px=560, mpp=0.75, spots=24, seed=5)
    return {"fine": found["P1"], "other": found["P2"], "coarse": coarse(found["P2"], 4)}


@pytest.fixture
def slides(sections) -> dict[str, Slide]:
    return {name: Slide.from_sdata(sdata, section=name) for name, sdata in sections.items()}


def test_alike_sections_and_one_alone_are_read_as_they_are(slides):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert common([slides["fine"], slides["other"]], NEEDS) is None
        assert common([slides["coarse"]], NEEDS) is None
        assert common([slides["coarse"], slides["coarse"].take([0, 1])], NEEDS) is None


def test_others_are_read_at_the_coarsest_with_a_warning(slides):
    with pytest.warns(UserWarning, match="'coarse' resolves 3.* 'fine'.* read at 3"):
        assert common([slides["fine"], slides["coarse"]], NEEDS) == slides["coarse"].resolved_mpp


def test_what_is_finer_than_crops_does_not_count(slides):
    assert common([slides["fine"], slides["coarse"]], Needs(CropSpec(400, 128))) is None


@pytest.mark.parametrize("wrong", ["fine", 0, -1.0, True, [1.0], 1e3, float("nan")])
def test_it_is_auto_or_a_number(slides, wrong):
    with pytest.raises(BadInput, match=r"resolution is .*expected 'auto', None for each"):
        common([slides["fine"]], NEEDS, wrong)


def test_more_than_a_section_resolves_is_refused_with_what_it_does(slides):
    assert common(slides.values(), NEEDS, 4.0) == 4.0 and common(slides.values(), NEEDS, None) is None
    assert common(read_at(slides.values(), 4.0), NEEDS) == 4.0  # what they are read at already
    with pytest.raises(BadInput, match=r"'coarse' resolve no more than 3.*Pass resolution=2"):
        common(slides.values(), NEEDS, 1.0)


def test_at_a_resolution_both_scans_of_a_section_have_the_same_features(slides):
    spec = CropSpec(96, 128)
    fine, small = (slides[name].features("texture", spec) for name in ("other", "coarse"))
    own, same = (slides[name].at(3.0).features("texture", spec) for name in ("other", "coarse"))
    spread = small.std(axis=0) + 1e-3
    assert np.median(np.abs(own - same) / spread) < 0.25 < 0.5 < np.median(np.abs(fine - small) / spread)


def test_crops_and_blocks_show_the_same(slides):
    spec, slide = CropSpec(96, 128), slides["other"].at(3.0)
    assert slide.frame.coarsens(spec) and not slide.frame.coarsens(CropSpec(512, 128))
    crops, native = (one.crops(spec)[:].astype(float) for one in (slide, slides["coarse"]))
    assert np.abs(crops - native).mean() < 3
    assert np.abs(slides["other"].crops(spec)[:] - native).mean() > 4


def test_slides_that_share_rows_still_do(slides):
    slide = slides["fine"]
    whole, part = read_at([slide, slide.take([0, 2])], 3.0)
    assert part._parent[0] is whole and whole.frame.resolution == 3.0
    assert read_at([slide], None)[0] is slide


def test_a_fitted_model_reads_and_refuses_by_what_it_saw(slides):
    saw = {"resolution": None, "resolved_mpp": [3.0]}
    assert for_model([slides["fine"]], NEEDS, saw) == 3.0  # a finer scan than that of the fit
    assert for_model([slides["coarse"]], NEEDS, saw) is None
    assert for_model([slides["fine"]], NEEDS, {}) is None  # nothing is known of it
    assert trained({"training_mpp": 0.5}, NEEDS) == NEEDS.crop.mpp
    with pytest.raises(BadInput, match=r"'coarse' resolves 3.* fitted at 0.9.*tl.fit\(..., resolution=3.*reference="):
        for_model([slides["coarse"]], NEEDS, {"resolved_mpp": [0.9]})


def test_the_verbs_read_at_one_resolution_and_say_so(sections):
    how = {"genes": GENES, "config": SMALL, "device": "cpu", "progress": False}
    fitted = sqi.tl.fit(sections["fine"], "ridge", resolution=3.0, **how)
    assert fitted.provenance["resolution"] == 3.0 and len(fitted.provenance["resolved_mpp"]) == 1
    sqi.tl.predict(sections["coarse"], fitted, key_added="fitted", progress=False)
    with pytest.warns(UserWarning, match="all are read at 3"):
        sqi.tl.predict(sections["coarse"], "ridge", reference=sections["fine"], **how)
    said = sections["coarse"].tables["imputed"].uns["sq_imputer"]["ridge"]
    assert said["resolution"] == pytest.approx(3, rel=0.2)
    with pytest.raises(BadInput, match=r"resolution is 2 .*fitted at 3.*tl.fit\(..., resolution=2\)"):
        sqi.tl.predict(sections["fine"], fitted, resolution=2.0, key_added="other")
    fine = sqi.tl.fit(sections["fine"], "ridge", **how)
    with pytest.raises(BadInput, match="resolves 3 µm per pixel .*fitted at 1"):
        sqi.tl.predict(sections["coarse"], fine, key_added="other")
    assert "other" not in sections["coarse"].tables


def test_one_folder_serves_scans_of_several_resolutions(sections, tmp_path):
    how = {"genes": GENES, "config": SMALL, "device": "cpu", "progress": False}
    fitted = sqi.tl.fit(sections["fine"], "ridge", resolution=[3.0, 1.0], **how)
    fitted.save(tmp_path)
    fine, coarse = (Slide.from_sdata(sections[name]) for name in ("other", "coarse"))
    read = sqi.load(tmp_path)
    assert fitting(read, [fine]) is read and fitting(read, [fine], 3.0) is read.coarser[0]
    assert fitting(read, [fine, coarse]) is read.coarser[0]
    for name, resolution in (("other", 1.0), ("coarse", 3.0)):
        sqi.tl.predict(sections[name], tmp_path, key_added="several", progress=False)
        said = sqi.io.pythonic(sections[name].tables["several"].uns["sq_imputer"])["ridge"]
        assert (said["resolution"], said["resolutions"]) == (resolution, [1.0, 3.0])
    alone = sqi.tl.fit(sections["fine"], "ridge", resolution=3.0, **how)
    sqi.tl.predict(sections["coarse"], alone, key_added="alone", progress=False)
    one, other = (sections["coarse"].tables[name].layers["ridge"] for name in ("several", "alone"))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_none_of_several_that_fits_is_refused_with_the_way_out(slides):
    saw = [SimpleNamespace(needs=NEEDS, provenance={"resolved_mpp": [mpp]}, coarser=()) for mpp in (0.9, 1.5)]
    saw[0].coarser = (saw[1],)
    model = fitting(saw[0], [slides["coarse"]])
    with pytest.raises(BadInput, match=r"fitted at 1.5.*tl.fit\(..., resolution=3"):
        for_model([slides["coarse"]], model.needs, model.provenance)


@pytest.mark.parametrize("wrong", [[], [1.0, 1.0], ["auto", 1.0], [None], [0.7, -1.0]])
def test_several_are_numbers_each_once(sections, wrong):
    with pytest.raises(BadInput, match=r"resolution (is|names) "):
        sqi.tl.fit(sections["fine"], "ridge", genes=GENES, resolution=wrong)
