"""The broker's state: protocol.py says what is asked of it, sqlite.py and memory.py answer."""
