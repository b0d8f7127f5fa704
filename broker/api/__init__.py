"""The doors: one file a gRPC service. Only here are the public API's messages known."""
