"""The LDAP engine against a real slapd and the last OpenBao that has it: `make test-ldap`."""
