"""What a scan is like: what it resolves, its light and its stains."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image
from spatialdata.transformations import Identity, Scale

from sq_imputer.section import looks
from sq_imputer.section.looks import Looks, look, looks_of, unlike
from sq_imputer.section.slide import Slide


def drawn(planted, pixels: np.ndarray, mpp: float) -> Slide:
    """The section with this image, which covers it."""
    sdata = planted.section()
    place = Identity() if mpp == 1 else Scale([mpp, mpp], axes=("x", "y"))
    sdata["he"] = planted.image(np.stack([pixels] * 3), {"um": place})
    return Slide.from_sdata(sdata)


@pytest.fixture(scope="module")
def sharp() -> np.ndarray:
    """`(240, 320)` gray values whose spectrum falls by a law without a scale down to the pixel."""
    rng = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(240)[:, None], np.fft.rfftfreq(320)[None])
    frequency[0, 0] = 1
    field = np.fft.irfft2(frequency**-1.25 * np.exp(2j * np.pi * rng.random(frequency.shape)), s=(240, 320))
    return (255 / (1 + np.exp(-field / field.std()))).astype(np.uint8)


def test_a_sharp_image_resolves_its_pixels(planted, sharp):
    assert drawn(planted, sharp, 1.0).resolved_mpp == pytest.approx(1, abs=0.2)


def test_an_enlarged_image_resolves_what_it_was_made_of(planted, sharp):
    large = np.asarray(Image.fromarray(sharp).resize((640, 480), Image.Resampling.BICUBIC))
    slide = drawn(planted, large, 0.5)
    assert slide.frame.pixel.mpp == 0.5
    assert slide.resolved_mpp == pytest.approx(1, abs=0.25)
    assert slide.take([0, 1]).resolved_mpp == slide.resolved_mpp


def test_it_does_not_hang_on_turns_and_mirrors(planted, sharp):
    turned = [drawn(planted, one, 1.0) for one in (sharp, sharp[::-1], sharp[:, ::-1])]
    found = [slide.resolved_mpp for slide in turned]
    assert max(found) - min(found) < 0.15


def test_what_shows_nothing_or_no_rows_is_as_its_pixels_are(planted, sharp):
    assert drawn(planted, np.full_like(sharp, 230), 1.0).resolved_mpp == 1.0
    assert look(drawn(planted, sharp, 1.0).frame, np.empty((0, 2))).resolved_mpp == 1.0


def test_a_picture_is_looked_at_once_and_another_of_its_name_anew(planted, sharp, monkeypatch):
    monkeypatch.setattr(looks, "_FOUND", {})
    monkeypatch.setattr(looks, "MOST_FOUND", 2)
    seen, tiles = [], looks.Crops
    monkeypatch.setattr(looks, "Crops", lambda *what, **how: seen.append(what) or tiles(*what, **how))
    first, again, turned = (drawn(planted, one, 1.0) for one in (sharp, sharp, sharp[::-1]))
    assert again.looks == first.looks and len(seen) == 1
    assert turned.looks != first.looks and len(seen) == 2
    assert look(first.frame, first.centers_px[:2]) and len(seen) == 3
    assert len(looks._FOUND) <= 2


KNOWN = {"mpp": 0.5, "resolved_mpp": 0.5, "white": (240.0, 235.0, 240.0), "blocks": 0.1}
LOOKS = Looks(**KNOWN, hematoxylin=(0.75, 0.58, 0.32), eosin=(0.3, 0.83, 0.46))


def test_what_differs_from_all_others_is_named():
    assert unlike(LOOKS, [LOOKS]) == []
    dark = replace(LOOKS, white=(150.0, 140.0, 150.0), eosin=(0.8, 0.5, 0.3), blocks=0.9)
    said = unlike(dark, [LOOKS])
    assert [one.split()[1] for one in said] == ["light", "eosin", "of"] and "(240, 235, 240)" in said[0]
    assert unlike(dark, [LOOKS, dark]) == []


def test_what_a_provenance_keeps_is_read_back():
    unknown = replace(LOOKS, eosin=(np.nan,) * 3)
    kept = json.loads(json.dumps(asdict(unknown)).replace("NaN", "null"))
    [back] = looks_of([kept, {"mpp": 1.0}, None])
    assert back.white == LOOKS.white and np.isnan(back.eosin).all()
    assert unlike(back, [LOOKS]) == [] and looks_of(None) == []
