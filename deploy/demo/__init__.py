"""The demo: a refund desk on real parts, told call by call."""
