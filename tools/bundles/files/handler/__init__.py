"""The handler of files.v1.Files: a tenant's folder on an HTTP server that knows PUT, MKCOL and MOVE."""
