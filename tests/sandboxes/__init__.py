"""Tests of Toolcrib, by behaviour that a user would notice."""
