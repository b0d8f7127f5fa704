"""Credentials that live exactly one call: minted, used, ended and confirmed dead.

The only package that imports hvac. `vault.VaultSession` is the way in; `dev_vault` and `dev_postgres` start
the real servers that `toolcrib dev`, the demo and the tests use.
"""
