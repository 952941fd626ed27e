from __future__ import annotations

import pytest
from fixtures_of_verbs import *  # noqa: F403
from quick_zarr import *  # noqa: F403


@pytest.fixture(autouse=True)
def close_figures():
    """No test leaves figures to the next."""
    import matplotlib.pyplot as plt

    yield
    plt.close("all")
