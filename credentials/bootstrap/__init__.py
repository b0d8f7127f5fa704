"""What Vault has to hold for Toolcrib: planned, applied, and reviewed, from the same definitions."""
