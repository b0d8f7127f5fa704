"""The handler of directory.v1.Directory, for tests only."""
