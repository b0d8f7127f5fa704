"""The handler of git.v1.Branches: Debian's git and OpenSSH, with a certificate that lives for one call."""
