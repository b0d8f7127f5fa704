"""The office's tools run in the tests' process (tests/broker/office.py); this program is never started."""

raise SystemExit("the office's tools run in the tests' own process")
