"""Property: adding a forbid never turns a denied call into an allowed one, or an ask into an allow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.broker.policy.conftest import DRAFT, REFUND, Desk, write_forbid, write_permit

ORDER = ("deny", "ask", "allow")
CONDITIONS = st.one_of(
    st.sampled_from(["true", "false", 'context has subject && context.subject == "ada"']),
    st.builds(
        "context.request has amount && context.request.amount.minor_units {} {}".format,
        st.sampled_from(["<", "<=", "==", ">", "* 9223372036854775807 >"]),
        st.integers(0, 3000),
    ),
)
SCOPES = st.builds(
    "{}, {}, {}".format,
    st.sampled_from(
        ["principal", 'principal == Agent::"desk"', 'principal == Agent::"other"', "principal is Agent"]
    ),
    st.sampled_from(["action", f'action == Action::"{REFUND}"', f'action in [Action::"{DRAFT}"]']),
    st.sampled_from(["resource", 'resource == Environment::"dev"', 'resource in Environment::"prod"']),
)
PERMITS = st.builds(
    lambda condition, ask, agent: write_permit(
        "ID", condition, annotations='@targets("orders-db")' + (' @ask("why")' if ask else ""), agent=agent
    ),
    CONDITIONS,
    st.booleans(),
    st.sampled_from(["desk", "desk", "other"]),
)
FORBIDS = st.builds(lambda condition, scope: write_forbid("ID", condition, scope), CONDITIONS, SCOPES)


def number(policies: list[str]) -> str:
    return "".join(policy.replace('"ID"', f'"p{n}"') for n, policy in enumerate(policies))


@given(st.lists(st.one_of(PERMITS, FORBIDS), max_size=5), FORBIDS, st.integers(0, 3000))
def test_adding_a_forbid_never_allows_more(desk: Desk, policies: list[str], forbid: str, units: int) -> None:
    call = desk.refund(units)
    before = desk.explain(desk.compile(number(policies)), call).decision
    after = desk.explain(desk.compile(number([*policies, forbid])), call).decision
    assert ORDER.index(after) <= ORDER.index(before)


@given(st.lists(st.one_of(PERMITS, FORBIDS), max_size=5), st.integers(0, 3000))
def test_the_order_of_policies_does_not_matter(desk: Desk, policies: list[str], units: int) -> None:
    numbered = [policy.replace('"ID"', f'"p{n}"') for n, policy in enumerate(policies)]
    ahead, back = ("".join(texts) for texts in (numbered, reversed(numbered)))
    call = desk.refund(units)
    found = (desk.explain(desk.compile(text), call) for text in (ahead, back))
    assert len({(f.decision, f.grant_ids) for f in found}) == 1
