"""HTTP on the way out of a sandbox: a proxy in a process of its own, behind sockets of each call.

The broker's side is `process.py`; the child is `__main__.py` and what it imports. This file stays empty so
that the child loads nothing that it does not need.
"""
