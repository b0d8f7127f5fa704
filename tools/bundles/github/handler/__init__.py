"""The handler of github.v1.GitHub: plain urllib; the token is added on the way out and never here."""
