from __future__ import annotations

import sys

import pytest
import torch

from sq_imputer.encoders._trunk import trunk
from sq_imputer.errors import BadInput


def test_without_timm_the_way_out_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BadInput, match=r"backbone 'densenet121' needs timm.*pip install.*leave backbone empty"):
        trunk("densenet121")


def test_features_of_a_densenet_have_both_signs() -> None:
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm does not import here: {error}")
    network = trunk("densenet121").eval()
    with torch.inference_mode():
        features = network(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (2, network.num_features) == (2, 1024)
    assert (features < 0).any() and (features > 0).any()
