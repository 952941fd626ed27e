from quick_zarr import *  # noqa: F403
