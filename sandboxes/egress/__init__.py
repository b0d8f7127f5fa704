"""The only way out of a sandbox: a unix socket per call and target, and a process of its own behind it.

The broker's side is `process.py`; the child, which holds no secret, is `__main__.py` and what it imports.
This file stays empty so that the child loads nothing that it does not need.
"""
