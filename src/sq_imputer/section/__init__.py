"""The only reader of SpatialData: what lies where on an image, at which µm per pixel, and what was measured there."""
