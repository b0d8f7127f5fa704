"""Serve one call of files.v1.Files, then end.

Run by the sandbox's init as `python3 -m handler` in the bundle's folder.
"""

from __future__ import annotations

from files.v1 import files_pb2

from toolcrib.handler import Handler

from .reading import list_folder, read_file
from .writing import lookup_write, write_file

handler = Handler()
handler.tool("files.v1.Files/ReadFile", files_pb2.ReadFileRequest)(read_file)
handler.tool("files.v1.Files/ListFolder", files_pb2.ListFolderRequest)(list_folder)
handler.tool("files.v1.Files/WriteFile", files_pb2.WriteFileRequest)(write_file)
handler.tool("files.v1.Files/LookupWrite", files_pb2.LookupWriteRequest)(lookup_write)

if __name__ == "__main__":
    handler.run()
