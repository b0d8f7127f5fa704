"""The attacks, a module per family; each has a tuple `ATTACKS`, which the arena finds by itself."""
