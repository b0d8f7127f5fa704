"""Tests of the sample bundles' handlers."""
