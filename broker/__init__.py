"""The broker: the way of a call, its record and its rules. Start reading at broker/path.py."""
