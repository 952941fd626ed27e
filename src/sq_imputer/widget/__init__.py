"""What the napari widget computes, without a window: jobs that can be ended, live prediction, means of a region."""
