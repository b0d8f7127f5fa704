"""Advice to the author of a bundle: what registration takes, and what is likely to go wrong all the same.

Each advisor is a function from a bundle's parts to violations of one code; this is the list of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tools.advice import bounds, egress, methods, roles, runtime, texts
from tools.advice.subject import Subject
from tools.errors import Violation

__all__ = ["ADVISORS", "Subject", "advise"]

ADVISORS: tuple[Callable[[Subject], Iterator[Violation]], ...] = (
    bounds.find_unbounded_strings,
    bounds.find_loose_patterns,
    bounds.find_unbounded_numbers,
    bounds.find_unbounded_bytes,
    bounds.find_unbounded_lists,
    bounds.find_unbounded_maps,
    bounds.find_contradictions,
    roles.find_unmarked_destinations,
    roles.find_ungated_methods,
    roles.find_unmarked_untrusted,
    roles.find_unmarked_secrets,
    roles.find_told_secrets,
    roles.find_bare_amounts,
    roles.find_uncounted_amounts,
    methods.find_uncommented,
    methods.find_unresolvable_writes,
    methods.find_unsaid_reach,
    methods.find_scopes_of_one_word,
    methods.find_shared_scopes,
    methods.find_own_keys,
    methods.find_meaning_zeros,
    methods.find_unhandled,
    texts.find_orders,
    texts.find_orders_of_rules,
    texts.find_hidden_markup,
    texts.find_long_texts,
    texts.find_blobs,
    texts.find_odd_addresses,
    runtime.find_unused_credentials,
    runtime.find_unused_targets,
    runtime.find_shared_credentials,
    runtime.find_shared_roles,
    runtime.find_broad_roles,
    runtime.find_shared_keys,
    runtime.find_many_signatures,
    runtime.find_odd_deadlines,
    runtime.find_large_output,
    egress.find_query_credentials,
    egress.find_handed_credentials,
    egress.find_opaque_targets,
    egress.find_wide_rules,
    egress.find_dropped_keys,
)


def advise(subject: Subject) -> Iterator[Violation]:
    """Yield the advice of every advisor."""
    for advisor in ADVISORS:
        yield from advisor(subject)
