"""The stages of a call, one file each; broker/path.py puts them in order."""
