"""The broker's record and Vault's own audit log, compared lease by lease.

    differences   what can differ, and what to look at
    vault_log     lines of Vault's log → happenings; what is wrong with the log itself
    our_record    records of our chain → happenings
    ledger        both sides of each child token and its lease, until they agree
    comparison    reads both sides at one pace

Both sides are streamed: what agrees is forgotten at once, so memory holds what is open, and the differences.
"""
