"""What the engine accepts in a policy but a reviewer would not mean; each rule with the mistake it stops.

The engine's own validation refuses unknown attributes and types. It lets pass, silently and for ever false:
`has` with a name that no tool has (a forbid behind such a typo never holds), tags, which our entities do not
have, and comparisons of a principal with something that is no Agent (measured with cedarpy 4.12.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

from cedarpy import pst

from broker.policy.findings import name_nearest
from broker.policy.schema import ACTION, AGENT, ENVIRONMENT, PolicySchema

_TYPE_OF = {"principal": AGENT, "action": ACTION, "resource": ENVIRONMENT}


def covered_methods(template: pst.Template) -> frozenset[str] | None:
    """Methods that a policy's action scope names; None when it covers every method."""
    match template.action:
        case pst.ActionEq(entity):
            return frozenset({entity.id})
        case pst.ActionIn(entities):
            return frozenset(entity.id for entity in entities)
        case _:
            return None


def named_in_scope(scope: pst.PrincipalOrResourceConstraint) -> str | None:
    """The one name that a principal or resource scope is bound to; None when it is bound to none."""
    if isinstance(scope, pst.ScopeEq | pst.ScopeIn | pst.ScopeIsIn) and isinstance(
        scope.entity, pst.EntityUid
    ):
        return scope.entity.id
    return None


def bound_names(template: pst.Template, name: pst.VarName) -> frozenset[str] | None:
    """Every name that a policy's principal or resource can have; None where the policy leaves it open.

    Reads the scope and what the `when` conditions compare with names. Never too few; the other conditions
    may leave fewer.
    """
    scope = named_in_scope(template.principal if name == "principal" else template.resource)
    found = None if scope is None else frozenset({scope})
    for clause in template.clauses:
        if isinstance(clause, pst.When):
            found = _meet(found, _names_bound_by(clause.expr, pst.Var(name)))
    return found


def find_unknown_names(template: pst.Template, schema: PolicySchema) -> list[str]:
    """Entities that are not there: other types, tools that are not registered, other environments."""
    known = {ACTION: frozenset(schema.contexts), ENVIRONMENT: frozenset(schema.environments)}
    problems = []
    for uid in sorted(pst.entity_uids(template), key=str):
        kind = str(uid.type)
        if kind not in _TYPE_OF.values():
            problems.append(f"{uid}: no such type; {name_nearest(kind, _TYPE_OF.values())}")
        elif kind in known and uid.id not in known[kind]:
            what = "tool" if kind == ACTION else "environment"
            problems.append(f'no {what} "{uid.id}"; {name_nearest(uid.id, known[kind])}')
    return problems


def find_breadth(template: pst.Template) -> list[str]:
    """A permit must say who, what and where. A forbid may cover everything."""
    if template.effect == "forbid":
        return []
    problems = []
    if not _is_bound(template, "principal"):
        problems.append(f'allows every agent; write principal == {AGENT}::"name"')
    if covered_methods(template) is None:
        problems.append(f'allows every tool; write action == {ACTION}::"package.Service/Method"')
    if not _is_bound(template, "resource"):
        problems.append(f'allows every environment; write resource == {ENVIRONMENT}::"name"')
    return problems


def find_never_true(template: pst.Template, schema: PolicySchema) -> list[str]:
    """Parts of conditions that can never hold, and so are not what their author meant."""
    methods = covered_methods(template)
    contexts = [m for m in schema.contexts if methods is None or m in methods]
    problems = ["`action in []` covers no tool; name one"] if methods == frozenset() else []
    for node in _walk(template):
        if isinstance(node, pst.HasAttr):
            problems += _check_has(node, schema, contexts)
        elif isinstance(node, pst.BinaryOp):
            problems += _check_comparison(node)
    return problems


def _is_bound(template: pst.Template, name: pst.VarName) -> bool:
    return bound_names(template, name) is not None


def _names_bound_by(expression: pst.Expr, variable: pst.Var) -> frozenset[str] | None:
    """The only names of a variable for which an expression can hold; None when it names none."""
    match expression:
        case pst.BinaryOp("and", left, right):
            return _meet(_names_bound_by(left, variable), _names_bound_by(right, variable))
        case pst.BinaryOp("or", left, right):
            one, other = _names_bound_by(left, variable), _names_bound_by(right, variable)
            return None if one is None or other is None else one | other
        case pst.BinaryOp("eq", left, right) if variable in (left, right):
            return _names_in(right if left == variable else left)
        case pst.BinaryOp("in", left, right) if left == variable:
            return _names_in(right)
        case pst.BinaryOp("contains", left, right) if right == variable:
            return _names_in(left)
        case _:
            return None


def _meet(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _names_in(expression: pst.Expr) -> frozenset[str] | None:
    elements = expression.elements if isinstance(expression, pst.Set) else (expression,)
    literals = [element for element in elements if isinstance(element, pst.EntityLit)]
    return frozenset(one.value.id for one in literals) if len(literals) == len(elements) else None


def _check_has(node: pst.HasAttr, schema: PolicySchema, methods: list[str]) -> list[str]:
    path = _path(node.base)
    if not path or path[0] == "action":
        return []
    if path[0] != "context":
        return [f"`{path[0]} has {'.'.join(node.attrs)}` is never true: it has no attributes; remove it"]
    base = path[1:]
    for name in node.attrs:
        known = {attribute for method in methods for attribute in schema.attributes(method, base)}
        if name not in known:
            place = ".".join(("context", *base))
            return [f"`{place} has {name}` is never true: no such field; {name_nearest(name, known)}"]
        base = (*base, name)
    return []


def _path(expression: pst.Expr) -> tuple[str, ...]:
    """("context", "request", "amount") for `context.request.amount`; empty for anything computed."""
    steps: list[str] = []
    while isinstance(expression, pst.GetAttr):
        steps.append(expression.attr)
        expression = expression.base
    return (expression.name, *reversed(steps)) if isinstance(expression, pst.Var) else ()


def _check_comparison(node: pst.BinaryOp) -> list[str]:
    if node.op in {"has_tag", "get_tag"}:
        return ["uses tags, which nothing here has; remove it"]
    if node.op not in {"eq", "not_eq", "in", "contains"}:
        return []
    for variable, other in ((node.left, node.right), (node.right, node.left)):
        if isinstance(variable, pst.Var) and variable.name in _TYPE_OF:
            wanted = _TYPE_OF[variable.name]
            wrong = sorted(str(uid) for uid in _compared(other) if str(uid.type) != wanted)
            if wrong:
                return [f"compares {variable.name} with {wrong[0]}, but it is an {wanted}; correct the name"]
    return []


def _compared(expression: pst.Expr) -> frozenset[pst.EntityUid]:
    return pst.entity_uids(expression) if isinstance(expression, pst.EntityLit | pst.Set) else frozenset()


def _walk(root: object) -> Iterator[object]:
    """Every node under `root`, at any depth, without recursion."""
    pending = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, Mapping):
            pending.extend(node.values())
        elif isinstance(node, tuple):
            pending.extend(node)
        elif is_dataclass(node) and not isinstance(node, type):
            yield node
            pending.extend(getattr(node, field.name) for field in fields(node))
