"""The only writer of SpatialData: elements of a store are replaced at once or not at all."""
