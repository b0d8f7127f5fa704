"""Asks URLs by ordinary clients, which know nothing of Toolcrib."""
