"""Tries a bundle's examples in its real sandbox, without a broker: what `toolcrib tools test` does."""
