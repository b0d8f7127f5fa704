"""The catalogue: what a tool's contract and manifest say, checked once and then asked on every call."""
