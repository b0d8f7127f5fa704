"""One suite a protocol, run on the fake and on the real thing."""
