-- What the tool of a call reached, or tried to: one JSON object (broker/store/connection_text.py), empty text
-- where there is nothing. It is kept clear: it holds names, templates and numbers, and nothing that was said.
ALTER TABLE calls ADD COLUMN connections TEXT NOT NULL DEFAULT '';
