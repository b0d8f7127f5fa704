-- Which versions an alias named, one after the other, so that it can go back. The newest step is what `aliases`
-- says; going back takes it away. What was before this table is not known: its steps begin with what is.
CREATE TABLE alias_steps (
  tenant  TEXT    NOT NULL,
  bundle  TEXT    NOT NULL,
  alias   TEXT    NOT NULL,
  step    INTEGER NOT NULL,
  version TEXT    NOT NULL,
  PRIMARY KEY (tenant, bundle, alias, step),
  FOREIGN KEY (tenant, bundle, version) REFERENCES versions
) STRICT, WITHOUT ROWID;

INSERT INTO alias_steps SELECT tenant, bundle, alias, 1, version FROM aliases;
