"""Tests of what one store does and the contract does not say."""
