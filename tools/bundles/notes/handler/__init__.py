"""The handler of notes.v1.Notes: one message to the mailbox of drafts, by SMTP with a password."""
