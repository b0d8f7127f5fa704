"""Serve one call of crm.v1.Crm, then end.

Run by the sandbox's init as `python3 -m handler` in the bundle's folder.
"""

from __future__ import annotations

from crm.v1 import crm_pb2

from toolcrib.handler import Handler

from .contacts import find_contacts
from .notes import add_note

handler = Handler()
handler.tool("crm.v1.Crm/FindContacts", crm_pb2.FindContactsRequest)(find_contacts)
handler.tool("crm.v1.Crm/AddNote", crm_pb2.AddNoteRequest)(add_note)

if __name__ == "__main__":
    handler.run()
