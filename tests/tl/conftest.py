from fixtures_of_verbs import *  # noqa: F403
from quick_zarr import *  # noqa: F403
