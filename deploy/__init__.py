"""How Toolcrib is set up, checked and shown."""
