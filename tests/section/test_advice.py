"""What an error advises is done, word for word, and then it works."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import spatialdata
from spatialdata.transformations import Identity, Scale

from sq_imputer.errors import BadInput, SqImputerError
from sq_imputer.section.slide import Slide


@pytest.fixture
def sdata(planted):
    return planted.section()


def advised(sdata, pattern: str, **keys) -> str:
    """The part of the error's message that the pattern's group names."""
    with pytest.raises(SqImputerError) as told:
        Slide.from_sdata(sdata, mpp=1.0, **keys)
    found = re.search(pattern, str(told.value))
    assert found, str(told.value)
    return found[1]


def done(advice: str, **known) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(advice, {"spatialdata": spatialdata, "np": np, **known})


def reads(sdata, **keys) -> None:
    assert len(Slide.from_sdata(sdata, mpp=1.0, **keys)) == 8


@pytest.mark.parametrize(
    ("channels", "pattern"),
    [
        (("r", "r", "b"), r"Call (sdata\.set_channel_names\(.*\))\."),
        (("DAPI", "CD3", "CD8"), r"call (sdata\.set_channel_names\(.*\))\."),
        (("0", "1", "2", "3"), r"say so: (sdata\.set_channel_names\(.*\))\."),
    ],
)
def test_channels_are_named_as_advised(planted, sdata, channels, pattern):
    matrix, shape = planted.place()
    pixels = planted.draw(matrix, shape)
    pixels = np.concatenate([pixels, np.full_like(pixels[:1], 255)])[: len(channels)]
    sdata.images["he"] = planted.image(pixels, {"um": planted.affine(matrix)}, channels)
    done(advised(sdata, pattern), sdata=sdata)
    reads(sdata)


def test_whole_numbers_of_16_bits_become_those_of_8(planted, sdata):
    import skimage.util

    matrix, shape = planted.place()
    pixels = planted.draw(matrix, shape)
    wide = pixels.astype(np.uint16) * 257
    sdata.images["he"] = planted.image(wide, {"um": planted.affine(matrix)})
    name = advised(sdata, r"\((skimage\.util\.img_as_ubyte), if the whole range is used\)")
    made = eval(name, {"skimage": skimage})(wide)
    assert np.abs(made.astype(int) - pixels).max() <= 1
    sdata.images["he"] = planted.image(made, {"um": planted.affine(matrix)})
    reads(sdata)


@pytest.mark.parametrize("axis", ["var", "obs"])
def test_names_that_are_there_twice_are_made_unique(sdata, axis):
    table = sdata.tables["table"]
    names = list(getattr(table, f"{axis}_names"))
    setattr(table, f"{axis}_names", [names[0], names[0], *names[2:]])
    call = advised(sdata, rf"(\.{axis}_names_make_unique\(\))")
    done(f"sdata.tables['table']{call}", sdata=sdata)
    reads(sdata)


def test_elements_without_a_common_system_get_one(sdata):
    spatialdata.transformations.set_transformation(sdata["spots"], {"elsewhere": Identity()}, set_all=True)
    name = advised(sdata, r"add one with (spatialdata\.transformations\.set_transformation)")
    done(f"{name}(sdata['spots'], one, 'um')", sdata=sdata, one=Scale([1.0, 1.0], axes=("x", "y")))
    reads(sdata)


def test_a_table_of_other_shapes_is_given_the_name_of_these(sdata):
    sdata.shapes["cells"] = sdata.shapes.pop("spots") if hasattr(sdata.shapes, "pop") else sdata.shapes["spots"]
    if "spots" in sdata.shapes:
        del sdata.shapes["spots"]
    advised(sdata, r"(Rename the region of the table)")
    table = sdata.tables["table"]
    table.obs["region"] = table.obs["region"].cat.rename_categories({"spots": "cells"})
    table.uns["spatialdata_attrs"]["region"] = "cells"
    reads(sdata)
    assert Slide.from_sdata(sdata, mpp=1.0).measured.all()


def test_shapes_with_one_id_twice_get_an_index_of_their_own(sdata):
    frame = sdata.shapes["spots"]
    frame.index = [0, 0, *range(2, len(frame))]
    advised(sdata, r"(Make its index unique)")
    frame.index = range(len(frame))
    reads(sdata)


def test_a_place_that_cannot_be_inverted_is_set_anew(sdata):
    spatialdata.transformations.set_transformation(sdata["spots"], Scale([1.0, 0.0], axes=("x", "y")), "um")
    with pytest.raises(BadInput, match="cannot be inverted.*Set a new one"):
        reads(sdata)
    spatialdata.transformations.set_transformation(sdata["spots"], Identity(), "um")
    reads(sdata)
