"""Between SpatialData and arrays: `read` and `slide` come in, `write` goes out, everything else is arrays."""
