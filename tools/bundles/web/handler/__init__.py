"""The handler of web.v1.Web: plain HTTP to declared sites, nothing followed, nothing unpacked."""
