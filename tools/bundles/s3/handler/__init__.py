"""The handler of s3.v1.Objects: plain urllib; requests are signed on the way out and never here."""
