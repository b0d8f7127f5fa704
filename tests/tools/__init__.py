"""Tests of the catalogue: contracts, manifests, registration, views."""
