"""Serve one call of notes.v1.Notes, then end.

Run by the sandbox's init as `python3 -m handler` in the bundle's folder.
"""

from __future__ import annotations

from notes.v1 import notes_pb2

from toolcrib.handler import Handler

from .drafts import draft_note

handler = Handler()
handler.tool("notes.v1.Notes/DraftNote", notes_pb2.DraftNoteRequest)(draft_note)

if __name__ == "__main__":
    handler.run()
