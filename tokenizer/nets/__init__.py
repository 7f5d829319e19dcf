"""JAX networks: pure functions over dicts of arrays, with no files, no media and no state."""
