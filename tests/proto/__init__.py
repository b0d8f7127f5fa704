"""Tests of what agents and tool authors install."""
