"""From an image to crops: pyramids, chunks and the order to read them in. Arrays only."""
