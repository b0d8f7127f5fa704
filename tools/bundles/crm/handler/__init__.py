"""The handler of crm.v1.Crm: plain urllib; the user's token is added on the way out and never here."""
