"""Advice on texts: a comment becomes a description in a model's prompt, so it may be an attack.

Only what is plain is found here. A reviewer reads the rest: what these patterns miss is still his.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from tools.advice.subject import Subject, owner
from tools.comments import MAX_COMMENT_CHARACTERS, index_comments
from tools.descriptors import read_options
from tools.elements import walk_file
from tools.errors import Violation, breach
from tools.rules import read_rules

_ORDERS = re.compile(
    r"""
      \bignore\b.{0,40}\b(?:previous|prior|above|earlier|other|all)\b
    | \bdisregard\b.{0,40}\b(?:instructions?|rules?|above|previous)\b
    | \b(?:always|never|first|must|should|before\s+\w+ing)\b.{0,30}
      \b(?:call|invoke|use)\s+(?:this|the)\b.{0,20}\b(?:tool|method|function)\b
    | \balways\s+(?:call|use|invoke|run|send|include|prefer)\b
    | \byou\s+(?:must|should|shall|have\s+to|need\s+to|are\s+(?:now|an?))\b
    | \b(?:do\s+not|don't|never)\s+(?:tell|inform|mention|show|reveal|ask|warn|notify)\b
    | \bwithout\s+(?:telling|asking|informing)\b
    | \b(?:system|developer)\s+(?:prompt|message|instructions?)\b
    | \b(?:instructions?|note)\s+(?:to|for)\s+(?:the\s+)?(?:model|assistant|agent|ai|llm)\b
    | \b(?:dear|hey)\s+(?:model|assistant|agent|ai|llm)\b
    | <\s*/?\s*(?:important|system|instructions?|assistant|user|secret)\s*>
    | \[/?INST\] | <\|[a-z_]+\|>
    | \bpass\b.{0,60}\b(?:conversation|chat\s+history|context\s+window)\b
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_BLOB = re.compile(r"[A-Za-z0-9+/_-]{100,}={0,2}|(?:\\x[0-9a-fA-F]{2}){16,}|(?:&#x?[0-9a-fA-F]+;){8,}")
_URL = re.compile(r"\b(?:[a-z][a-z0-9+.-]{1,15}://|data:|javascript:)[^\s<>\"')\]]*", re.IGNORECASE)
_HTML = re.compile(r"<!--|-->")
_ADDRESS = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}|[0-9a-f:]*:[0-9a-f:]+|\d+|0x[0-9a-f]+")


def find_orders(subject: Subject) -> Iterator[Violation]:
    """Yield texts that tell a model what to do."""
    for name, text in _list_texts(subject):
        found = _ORDERS.search(" ".join(text.split()))
        if found:
            yield breach("COMMENT_ORDERS", name, f"speaks to the model ({found.group()[:60]!r})")


def find_orders_of_rules(subject: Subject) -> Iterator[Violation]:
    """Yield rules that, when they are broken, tell a model what to do."""
    for name, text in _list_rule_texts(subject):
        found = _ORDERS.search(" ".join(text.split()))
        if found:
            yield breach("RULE_ORDERS", name, f"has a rule that speaks to the model ({found.group()[:60]!r})")


def find_hidden_markup(subject: Subject) -> Iterator[Violation]:
    """Yield texts with comments of HTML, which a page of documentation would hide."""
    for name, text in _list_texts(subject):
        if _HTML.search(text):
            yield breach("COMMENT_HTML", name, "has a comment with an HTML comment in it")


def find_long_texts(subject: Subject) -> Iterator[Violation]:
    """Yield texts of which a model gets only the beginning."""
    for name, text in _list_texts(subject):
        if len(text) > MAX_COMMENT_CHARACTERS:
            problem = f"has a comment of {len(text)} characters, of which {MAX_COMMENT_CHARACTERS} are shown"
            yield breach("COMMENT_LONG", name, problem)


def find_blobs(subject: Subject) -> Iterator[Violation]:
    """Yield texts that only a machine reads."""
    for name, text in _list_texts(subject):
        if _BLOB.search(text):
            yield breach("COMMENT_BLOB", name, "has a comment with encoded text in it")


def find_odd_addresses(subject: Subject) -> Iterator[Violation]:
    """Yield texts with addresses that hide where they lead."""
    for name, text in _list_texts(subject):
        for url in _URL.findall(text):
            if _is_odd(url):
                yield breach("COMMENT_URL", name, f"has a comment with the address {url[:80]!r}")


def _list_texts(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield (where, text) of comments, and of the manifest's description."""
    if subject.manifest is not None:
        yield "tool.yaml: description", subject.manifest.description
    if subject.registered is None:
        return
    for file in subject.registered.files:
        comments = index_comments(file)
        for element in walk_file(file):
            if comments.get(element.path):
                yield element.name, comments[element.path]


def _list_rule_texts(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield what rules say when they are broken: an agent reads that too."""
    fields = list(subject.request_fields())
    for item in fields:
        rules = read_rules(item)
        yield from ((item.full_name, rule.message) for rule in (rules.cel if rules is not None else ()))
    for message in {owner(item).full_name: owner(item) for item in fields}.values():
        whole = read_options(message.GetOptions(), "buf.validate.message")
        yield from ((message.full_name, rule.message) for rule in (whole.cel if whole is not None else ()))


def _is_odd(url: str) -> bool:
    if url.lower().startswith(("data:", "javascript:")):
        return True
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return True
    is_named = "." in host or host == "localhost"
    odd = "@" in parts.netloc or "xn--" in host or not host.isascii() or port is not None
    return odd or not is_named or _ADDRESS.fullmatch(host) is not None
