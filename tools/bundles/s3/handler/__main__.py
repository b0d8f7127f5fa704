"""Serve one call of s3.v1.Objects, then end.

Run by the sandbox's init as `python3 -m handler` in the bundle's folder.
"""

from __future__ import annotations

from s3.v1 import objects_pb2

from toolcrib.handler import Handler

from .reading import get_object, list_objects
from .writing import lookup_put, put_object

handler = Handler()
handler.tool("s3.v1.Objects/ListObjects", objects_pb2.ListObjectsRequest)(list_objects)
handler.tool("s3.v1.Objects/GetObject", objects_pb2.GetObjectRequest)(get_object)
handler.tool("s3.v1.Objects/PutObject", objects_pb2.PutObjectRequest)(put_object)
handler.tool("s3.v1.Objects/LookupPut", objects_pb2.LookupPutRequest)(lookup_put)

if __name__ == "__main__":
    handler.run()
