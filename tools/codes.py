"""The codes of what `toolcrib tools check` finds: what each means, where it is shown, and the remedy.

An ERROR is refused at registration. A WARNING is advice: what agents, reviewers or people in a hurry are
likely to trip over; `check --strict` takes it for an error. docs/check.md is written from this table.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Severity(enum.StrEnum):
    """How much a fault matters."""

    ERROR = "error"
    WARNING = "warning"


class Code(NamedTuple):
    """What one code means.

    Attributes:
        part: What of an element is shown: "options", "rules", "type", "comment", …; empty for itself.
        meaning: For docs/check.md, after "The bundle" or alone.
        remedy: What to do, where the fault itself does not say it better.
    """

    severity: Severity
    part: str
    meaning: str
    remedy: str


def _error(meaning: str, remedy: str, part: str = "") -> Code:
    return Code(Severity.ERROR, part, meaning, remedy)


def _warning(meaning: str, remedy: str, part: str = "") -> Code:
    return Code(Severity.WARNING, part, meaning, remedy)


FOLDER_CODES = {
    "PART_MISSING": _error("tool.yaml, the protos or the handler are not there", "add the part"),
    "PROTO_INVALID": _error("a proto does not compile", "see protoc's message"),
    "TRUSTED_COPY": _error("a proto has the name of a file that comes with Toolcrib", "remove the copy"),
    "MODULE_HIDDEN": _error("a package has the name of a module of Python", "rename the package"),
    "FILE_KIND": _error("a link or a device is where a file should be", "put a plain file there"),
    "FILE_TOO_LARGE": _error("a file, or their number, is too large", "pack less"),
    "NOT_TEXT": _error("a text is not UTF-8", "save it as UTF-8"),
    "HANDLER_ENTRY": _error("image.command starts a program that the bundle has not", "name one that it has"),
    "LOCK_INVALID": _error("requirements.txt is no lock", "write name==version with hashes"),
    "LOCK_CLASH": _error(
        "requirements.txt locks another version than the base has", "lock the base's version"
    ),
}
MANIFEST_CODES = {
    "MANIFEST_YAML": _error("tool.yaml is no plain YAML mapping", "see docs/contracts.md"),
    "MANIFEST_FIELD": _error("tool.yaml has a field that there is not", "remove or correct it"),
    "MANIFEST_FORBIDDEN": _error("tool.yaml asks for what no bundle gets", "do as the message says"),
    "MANIFEST_MISSING": _error("a field is required and not there", "add it"),
    "MANIFEST_VALUE": _error("a value has the wrong form", "write it as the message says"),
    "MANIFEST_NAME": _error("a name leads to nothing", "declare it, or correct the name"),
    "HTTP_ALLOW": _error(
        "an http target has neither rules nor `opaque`, or both; or another kind has one of them",
        "write `allow`, or `opaque: true`",
    ),
    "HTTP_RULE": _error("a rule says nothing that a request can be held to", "write it as the message says"),
    "INJECT_FORM": _error("`inject` does not fit its engine or its form", "do as the message says"),
    "INJECT_TARGET": _error("a credential cannot be added there", "do as the message says"),
    "METHOD_MISSING": _error("a method of the services is not in tool.yaml", "list it under `tools`"),
    "METHOD_UNKNOWN": _error("tool.yaml lists what is no method", "remove or correct it"),
    "IMAGE_ID": _error("the image is not named by its id", "let `tools register` build it"),
}
SET_CODES = {
    "SET_UNREADABLE": _error("the bytes are no FileDescriptorSet", "compile with protoc"),
    "SET_TOO_LARGE": _error("the set is too large to look at", "split the bundle"),
    "SET_EMPTY": _error("the set has no file of the bundle", "compile the bundle's files too"),
    "FILE_TWICE": _error("a file is in the set twice", "keep one"),
    "FILE_NAME": _error("a file's name is no plain relative path", "rename it"),
    "PACKAGE_RESERVED": _error("a package is somebody else's", "choose another name", "package"),
    "PACKAGE_NAME": _error("a package does not end in its version", 'write "shop.v1"', "package"),
    "IMPORT_MISSING": _error("an imported file is not in the set", "compile with its imports"),
    "IMPORT_CIRCLE": _error("files import each other", "move what both need to a third file"),
    "IMPORT_KIND": _error("an import is weak, for options only, or not there", "import plainly"),
    "FILES_CLASH": _error("protobuf cannot link the files", "see protobuf's message"),
    "SYNTAX": _error("a file is proto2 or of an edition", 'write `syntax = "proto3"`', "syntax"),
    "NAME": _error("a name is none, or is longer than 128 characters", "rename it"),
    "JSON_NAME": _error("a JSON name has odd characters", "use letters, digits and _"),
    "OPTION_UNREAD": _error("an option was not read by protoc", "compile with protoc"),
    "OPTION_UNREADABLE": _error("the options cannot be decoded", "compile with our option files"),
    "OPTION_UNKNOWN": _error("the broker does not know an option", "remove it"),
    "EXTENSION": _error("a file or message declares extensions", "remove them"),
    "MAP_FORGED": _error("a message claims to be a map's entry", "write map<K, V>"),
    "ONEOF": _error("a field is in a oneof that is not there", "compile with protoc"),
    "FIELD_TYPE": _error("a field does not say its type", "compile with protoc"),
    "GROUP": _error("a field is a group", "use a message"),
    "REQUIRED": _error("a field is required on the wire", "use (buf.validate.field).required"),
    "DEFAULT": _error("a field has a default value", "remove it"),
    "WIRE_OPTION": _error("an option changes how bytes are read or checked", "remove it"),
    "ENUM_ALIAS": _error("an enum has two names for one number", "keep one"),
    "INVISIBLE_CHARACTERS": _error("a text has characters that nobody sees", "remove them"),
}
CONTRACT_CODES = {
    "NO_SERVICE": _error("there is no service", "add one: a tool is a method of it"),
    "STREAMING": _error("a method streams", "make it unary"),
    "TOOL_OPTION": _error("a method has no (toolcrib.v1.tool)", "set effect and scope"),
    "EFFECT": _error("a method has no effect", "set READ, DRAFT or WRITE", "options"),
    "REACH": _error("a method's reach is unknown", "set INTERNAL or OUTWARD", "options"),
    "SCOPE": _error("a method has no scope", 'write one such as "orders.read"', "options"),
    "ACCESS": _error("a method sets access", "remove it", "options"),
    "PROBE_ON_READ": _error("a READ names a probe", "remove probe", "options"),
    "DEDUPES_ON_READ": _error("a READ says that it dedupes", "remove dedupes", "options"),
    "PROBE_UNKNOWN": _error("a probe is no tool of the service", "correct its name", "options"),
    "PROBE_NOT_READ": _error("a probe is not a READ", "name a READ", "options"),
    "PROBE_FORM": _error("a probe lacks one of its three fields", "mark one field each", "options"),
    "PROBE_REQUEST": _error(
        "a probe cannot be asked with the key alone", "make the rest optional", "options"
    ),
    "UNBOUNDED_TYPE": _error("a field holds Any, Struct or a descriptor", "write a message", "type"),
    "ROLE_MISPLACED": _error("a role stands where it means nothing", "see docs/contracts.md", "options"),
    "DESTINATION_TYPED": _error(
        "an OUTWARD method takes an address (by its rule: email, uri, hostname, ip) that is not marked",
        "add (toolcrib.v1.field).destination = true",
        "rules",
    ),
    "TOO_DEEP": _error("a message nests too deep", "flatten it"),
    "TOO_WIDE": _error("a request is too large when it is written out", "use fewer fields"),
    "RULE_BROKEN": _error("a rule does not compile", "see the engine's message", "rules"),
    "CEL_UNBOUNDED": _error("a CEL rule is too long, or loops too deep", "split it", "rules"),
    "SCHEMA_TOO_LARGE": _error("the JSON Schema is too large for a prompt", "use smaller messages"),
    "SCHEMA_INVALID": _error("the JSON Schema is not valid", "simplify the rules"),
}
FIELD_ADVICE = {
    "STRING_UNBOUNDED": _warning(
        "a request's string has no bound: an agent can send megabytes",
        "add (buf.validate.field).string.max_len, in, or a pattern from ^ to $",
    ),
    "PATTERN_UNANCHORED": _warning(
        "a pattern does not reach from ^ to $: anything may stand around it", "write ^ and $", "rules"
    ),
    "NUMBER_UNBOUNDED": _warning(
        "a request's number has no lower or no upper bound", "add gte and lte for its type", "type"
    ),
    "LIST_UNBOUNDED": _warning(
        "a request's list has no bound", "add (buf.validate.field).repeated.max_items"
    ),
    "MAP_UNBOUNDED": _warning("a request's map has no bound", "add (buf.validate.field).map.max_pairs"),
    "BYTES_UNBOUNDED": _warning("a request's bytes have no bound", "add (buf.validate.field).bytes.max_len"),
    "RULE_IMPOSSIBLE": _warning(
        "a least size is above the largest, so no value is ever taken", "correct one of both", "rules"
    ),
    "ENUM_ZERO": _warning(
        "an enum's zero means something, so leaving it out does too", "add …_UNSPECIFIED = 0"
    ),
    "AMOUNT_WITHOUT_CURRENCY": _warning(
        "a number is an amount by its name and has no currency, so no budget counts it",
        "use a message of int64 minor_units and string currency, marked amount",
    ),
    "AMOUNT_UNMARKED": _warning(
        "a request's field has the form of an amount and no role, so no budget counts it",
        "add (toolcrib.v1.field).amount = true",
    ),
    "DESTINATION_UNMARKED": _warning(
        "an argument says by its name or rule who or what is reached, and is not gated",
        "add (toolcrib.v1.field).destination = true",
    ),
    "UNTRUSTED_UNMARKED": _warning(
        "a string of a response is likely to hold strangers' words, and is not labelled",
        "add (toolcrib.v1.field) = {untrusted: true, content: TEXT}",
    ),
    "SECRET_UNMARKED": _warning(
        "an argument is a secret by its name, and policies and logs see it",
        "add (toolcrib.v1.field).secret = true, or mint it as a credential",
    ),
    "SECRET_IN_RESPONSE": _warning("a response holds a secret: it goes to the agent", "leave it out"),
}
METHOD_ADVICE = {
    "METHOD_UNCOMMENTED": _warning(
        "a method has no comment: a model knows only its name", "say what it does"
    ),
    "WRITE_UNRESOLVABLE": _warning(
        "a write has neither `probe` nor `dedupes`: after a crash a person has to find out what became of it",
        "add a probe, or dedupes where the target promises it",
        "options",
    ),
    "REACH_UNSAID": _warning(
        "a method does not say its reach", "write reach: INTERNAL or OUTWARD", "options"
    ),
    "OUTWARD_WITHOUT_DESTINATION": _warning(
        "an OUTWARD method has no destination, so nothing of where it reaches is gated",
        "mark the argument that says where, unless it always reaches one place",
        "options",
    ),
    "SCOPE_FORM": _warning("a scope is one word", 'write thing.verb, such as "orders.read"', "options"),
    "SCOPE_SHARED": _warning(
        "methods of different effect share a scope: who may read may write",
        "give each effect its own",
        "options",
    ),
    "KEY_FIELD": _warning(
        "a write takes an idempotency key of its own, which the agent can change",
        "remove it: the handler gets the broker's key",
    ),
}
TEXT_ADVICE = {
    "COMMENT_ORDERS": _warning(
        "a comment gives the model orders: a description that steers agents", "say what it does", "comment"
    ),
    "RULE_ORDERS": _warning(
        "what a rule says when it is broken gives the model orders", "say what is wrong", "rules"
    ),
    "COMMENT_HTML": _warning("a comment holds an HTML comment", "remove it", "comment"),
    "COMMENT_LONG": _warning("a comment has more than 2,000 characters", "shorten it", "comment"),
    "COMMENT_BLOB": _warning("a comment holds encoded text", "remove it", "comment"),
    "COMMENT_URL": _warning("a comment holds an address with an odd host", "remove it", "comment"),
}
MANIFEST_ADVICE = {
    "CREDENTIAL_UNUSED": _warning("no method uses a credential", "remove it"),
    "TARGET_UNUSED": _warning("no method uses a target", "remove it"),
    "CREDENTIAL_SHARED": _warning(
        "methods of different effect share a credential: a READ can write", "make one for each effect"
    ),
    "ROLE_SHARED": _warning(
        "two credentials of one role serve methods of different effect", "make a role for each effect"
    ),
    "ROLE_BROAD": _warning("a role is an administrator's by its name", "make a role for this tool alone"),
    "KEY_SHARED": _warning("methods share a signing key", "make a key for each method"),
    "SIGNATURES_MANY": _warning("one call may sign more than ten times", "lower max_signatures"),
    "DEADLINE_LONG": _warning("a deadline is over two minutes: an agent waits that long", "lower it"),
    "DEADLINE_SHORT": _warning("a deadline is under half a second: a busy host needs more", "raise it"),
    "INJECT_QUERY": _warning(
        "a credential is added to the URL, and URLs are logged everywhere", "use bearer or header"
    ),
    "CREDENTIAL_HANDED": _warning(
        "the tool gets a secret of an http target that the proxy could add instead", "write `inject`"
    ),
    "TARGET_OPAQUE": _warning(
        "nobody sees what a tool asks of an opaque target", "write `allow`, unless it is HTTP/2 or WebSocket"
    ),
    "RULE_ANY_QUERY": _warning(
        "a rule lets any query pass, so a tool can send what it likes", "list the parameters"
    ),
    "RULE_REST": _warning("a rule allows everything below a path", "name the segments"),
    "KEY_DROPPED": _warning(
        "a method dedupes, and no rule of its target lets the header pass in which the handler sends the key",
        "list it under the rule's headers",
    ),
    "OUTPUT_LARGE": _warning("limits.output_kib is more than the results can have", "lower it"),
}
HANDLER_ADVICE = {
    "METHOD_UNHANDLED": _warning("no file of the handler names a method", "serve it, or remove it"),
}

CODES: dict[str, Code] = {
    **FOLDER_CODES,
    **MANIFEST_CODES,
    **SET_CODES,
    **CONTRACT_CODES,
    **FIELD_ADVICE,
    **METHOD_ADVICE,
    **TEXT_ADVICE,
    **MANIFEST_ADVICE,
    **HANDLER_ADVICE,
}
"""Every code."""
