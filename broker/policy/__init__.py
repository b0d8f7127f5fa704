"""Who may call which tool: Cedar policies in files, checked against the tools' contracts.

    statements    a file's text → statements, each with its line
    annotations   a statement's @annotations → Terms
    destinations  destinations.toml → Registry
    schema        contracts → the Cedar schema that policies are validated against
    rules         what the engine does not refuse but a reviewer would want refused
    findings      what is wrong: where, what, and what to write instead
    files         files → policies; digest and plan
    slices        a question → the few policies that can decide it, and what the engine says
    grants        policies + contracts → GrantSet, which answers authorize and explain
    access        policies + uses → rows for a reviewer: who may call what, and what nobody uses
    history       audit → since when each grant has its present form

Everything here is default deny: an empty file, an empty set and an error of evaluation refuse.
"""
