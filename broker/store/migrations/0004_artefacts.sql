-- The files that calls gave back. `head` is name, media type, size and digest; like every part of the content it
-- begins with a byte that says whether it is clear (0) or sealed (1). They go when their tenant is erased.
CREATE TABLE artefacts (
  tenant      TEXT    NOT NULL,
  environment TEXT    NOT NULL,
  call_id     TEXT    NOT NULL,
  position    INTEGER NOT NULL,
  head        BLOB    NOT NULL,
  PRIMARY KEY (tenant, environment, call_id, position),
  FOREIGN KEY (tenant, environment, call_id) REFERENCES calls
) STRICT, WITHOUT ROWID;

CREATE TABLE artefact_parts (
  tenant      TEXT    NOT NULL,
  environment TEXT    NOT NULL,
  call_id     TEXT    NOT NULL,
  position    INTEGER NOT NULL,
  part        INTEGER NOT NULL,
  content     BLOB    NOT NULL,
  PRIMARY KEY (tenant, environment, call_id, position, part),
  FOREIGN KEY (tenant, environment, call_id, position) REFERENCES artefacts
) STRICT;
