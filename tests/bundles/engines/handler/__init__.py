"""The handler of engines.v1.Engines."""
