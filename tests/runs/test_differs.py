"""A section of another stain is told by what differs."""

from __future__ import annotations

import numpy as np
import pytest
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

import sq_imputer as sqi

CONFIG = {"size_px": 32, "context_um": ()}


@pytest.mark.filterwarnings("ignore:the scan of section:UserWarning")
def test_a_pale_section_is_flagged_with_what_differs(patients, genes) -> None:
    model = sqi.tl.fit([patients["P1"], patients["P2"]], "ridge", genes=genes, config=CONFIG)
    assert model.provenance["ood_from"] == "left-out individuals"
    image = patients["P3"].images["he"]
    pale = 255 - (255 - np.asarray(image["scale0"]["image"].data).astype(float)) * 0.25
    places = get_transformation(image, get_all=True)
    patients["P3"].images["he"] = Image2DModel.parse(
        pale.astype("u1"), dims="cyx", c_coords=["r", "g", "b"], transformations=places
    )
    sqi.tl.predict(patients["P3"], model)
    with pytest.warns(UserWarning, match="'P3' is unlike the training tissue: .* What differs most: .*texture .* sd"):
        sqi.tl.trust(patients["P3"], n_null=20)
    obs = patients["P3"].tables["imputed"].obs
    assert not obs["ridge_reliable"].any() and obs["ridge_reason"].str.contains("unlike").all()
