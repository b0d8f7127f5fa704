"""Never started: the tests that use this bundle play its tools themselves."""
