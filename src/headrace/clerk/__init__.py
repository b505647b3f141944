"""The role that keeps the books: what the broker lost, what a dead worker held, what is too old."""
