"""Addresses such as ``s3://KEY:SECRET@bucket/x?sig=…``, and their redaction for messages, logs and files.

This is the only module that removes secrets from addresses. All functions except ``redact_logs`` are pure.
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
MIN_SECRET = 4  # characters of the shortest secret that is replaced outside of an address
CONTAINERS = {"abfs", "abfss", "az", "wasb", "wasbs"}  # CONTAINER@ACCOUNT is a location
PATHS = {"file", "local", "sqlite", "dbfs"}  # have no host: what follows three slashes is a path

_NAME = r"[a-z0-9+.-]"  # in a scheme, which has at least two characters: one is a drive
_SCHEME = re.compile(rf"\s*(?P<name>{_NAME}{{2,}}):(?P<slashes>/+)", re.I)
_STRICT_SCHEME = re.compile(rf"(?P<name>[a-z]{_NAME}+):(?P<slashes>/+)", re.I)  # of RFC 3986
_ADDRESS = re.compile(rf"\s*(?:{_NAME}+::)*{_NAME}{{2,}}:/", re.I)
_LINK = re.compile(rf"::(?={_NAME}{{2,}}:/)", re.I)  # of a chain of fsspec
_IN_TEXT = re.compile(rf"(?<!{_NAME})(?:{_NAME}+::){{0,8}}{_NAME}{{2,}}:/", re.I)
_ENCODED = re.compile(rf"(?<!{_NAME}){_NAME}{{2,}}%3a%2f[^\s'\"<>]*", re.I)
_NO_SCHEME = re.compile(r"(?<![\w:/])//[^\s'\"@:]{0,256}:(?:[^\s'\"@]{0,256}@)+")
_URLLIB3 = re.compile(r"((?:\bwith url: |\bbroken by '[^\n]*': )/[^\s?#]*)[?#]\S*")
_PORT = re.compile(r"[^/@]*:\d+/")
_AT = re.compile(r"@|%40")
_QUERY = re.compile(r"[?#]")
_SPACE = re.compile(r"\s")
_PUNCTUATION = ")]}>,.;:!?'\"`\\"  # behind an address in a sentence


def is_address(text: str) -> bool:
    """Whether a string begins like an address, a chain of addresses, or an address that lost a slash in ``pathlib``."""
    return bool(_ADDRESS.match(text))


def split_scheme(address: str) -> tuple[str, int]:
    """Return the scheme in lower case and the number of slashes that follow; ``("", 0)`` for a path or a chain."""
    match = _STRICT_SCHEME.match(address)
    return (match["name"].lower(), len(match["slashes"])) if match else ("", 0)


def split_query(address: str) -> tuple[str, str]:
    """Split the address of a file into the address without the query, and the query with its mark.

    In http addresses, the query begins at the first ``?`` or ``#``. Elsewhere both may be in a name, and it begins at a
    ``?`` behind the last slash.
    """
    mark = r"[?#].*" if split_scheme(address)[0].startswith("http") else r"\?[^/]*$"
    match = re.search(mark, address, re.DOTALL)
    return (address[: match.start()], match.group()) if match else (address, "")


def redact(address: str) -> str:
    """Return an address without user info, query and fragment.

    - User info ends at an ``@``: in the host, before the first ``/``, at any; behind it only if a ``:`` stands before,
      because passwords may hold a slash. ``https://user:pa/ss@host/x`` becomes ``https://host/x``, and
      ``https://host/a@b`` stays.
    - Where the secret ends is unclear if the ``@`` stands behind a ``?`` or ``#``, or in a path behind a port, as in
      ``https://host:80/a@b``. Only the scheme is shown then.
    - The container in ``abfs://container@account/x`` is a location and stays.
    - Each address of a chain, such as ``zip://a::https://…``, is redacted.

    Args:
        address: an address; of any other text, the addresses in it are redacted.
    """
    if not is_address(address):
        return _redact_found(address)
    links = []
    for link in _LINK.split(address):
        scheme, _, shown, _ = _split(link)
        links.append(scheme + shown)
    return _ENCODED.sub(_decoded, "::".join(links))


def redact_text(text: str, *addresses: str) -> str:
    """Return a text, such as the message of a library, with all addresses in it redacted.

    An address ends where its quotation mark is closed, or at white space. ``//user:password@host`` is redacted too, and
    the query of the paths that urllib3 shows in place of an address.

    Args:
        text: any text.
        addresses: whose secrets are replaced wherever they stand, because libraries also show parts of an address.
    """
    text = _URLLIB3.sub(r"\1", _NO_SCHEME.sub("//", _redact_found(text)))
    for secret, replacement in _secrets(addresses).items():
        text = text.replace(secret, replacement)
    return text


def redact_message(error: BaseException, *addresses: str) -> str:
    """Return the message of an error on one line, redacted; ``addresses`` are those of ``redact_text``."""
    return redact_text(" ".join(str(error).split()), *addresses)


def redacted_name(address: str, path: str, query: str = "") -> str:
    """Return a unique file name for a copy of an address, without its secrets.

    Args:
        address: hashed with the query.
        path: path of the address in its file system. The name begins with its last component, or with that of the
            redacted address if the address has secrets.
        query: query of the files at the address.
    """
    shown = redact(address)
    readable = path if shown == address else re.sub(r"[^\w./-]", "_", shown)
    digest = hashlib.sha256(f"{address}{query}".encode()).hexdigest()[:16]
    return f"{PurePath(readable).name or 'root'}-{digest}"


def redact_values(value: Any) -> Any:
    """Return a copy of a value, also of nested mappings and lists, with redacted strings and paths."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, PurePath):
        shown = redact(str(value))
        return value if shown == str(value) else shown
    if isinstance(value, Mapping):
        return {redact_values(key): redact_values(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [redact_values(inner) for inner in value]
    return tuple(map(redact_values, value)) if isinstance(value, tuple) else value


def redact_logs(*names: str) -> None:
    """Let the present handlers of some loggers redact what they write.

    Args:
        names: of the loggers; ``""`` is the root.
    """
    for name in names:
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_FILTER)  # once, however often it is added


class _Redaction(logging.Filter):
    """Redacts the message and the traceback of every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a record in place; always true."""
        text = record.getMessage()
        shown = redact_text(text)
        if shown != text:
            record.msg, record.args = shown, ()
        if record.exc_info and record.exc_info[0] and not record.exc_text:
            trace = logging.Formatter().formatException(record.exc_info)
            shown = redact_text(trace)
            if shown != trace:
                record.exc_text = shown  # formatters take it instead of their own
        return True


_FILTER = _Redaction()


def _split(address: str) -> tuple[str, str, str, str]:
    """Scheme, user info with ``@``, what may be shown, query or fragment with its mark."""
    found = _SCHEME.match(address)
    if found is None:
        return "", "", address, ""
    scheme, rest = found.group(), address[found.end() :]
    name, n_slashes = found["name"].lower().lstrip("-").partition("+")[0], len(found["slashes"])
    if name in PATHS and n_slashes > 2:
        path, mark, query = rest.partition("?")
        return scheme, "", path, mark + query
    head = _QUERY.split(rest, maxsplit=1)[0]
    has_no_host = name in CONTAINERS or (name in PATHS and n_slashes == 1)
    end = _end_of_login(rest, head, has_no_host)
    is_unclear = end > len(head) or (end > 0 and _PORT.match(rest))
    return scheme, rest[:end], HIDDEN if is_unclear else rest[end : len(head)], rest[len(head) :]


def _end_of_login(rest: str, head: str, has_no_host: bool) -> int:
    """Index behind the user info of what follows the scheme; ``head`` is what precedes a query."""
    last = rest.rfind("@") + 1
    if ":" in head[:last]:
        return last
    if has_no_host:
        return 0
    return max((match.end() for match in _AT.finditer(head.partition("/")[0])), default=0)


def _redact_found(text: str) -> str:
    """A text with all addresses in it redacted that have a scheme."""
    parts, end = [], 0
    for found in _IN_TEXT.finditer(text):
        start, behind = found.span()
        if start < end:  # in the address before
            continue
        parts.append(text[end:start])
        end = _end_of_address(text, start, behind)
        last = max(behind, start + len(text[start:end].rstrip(_PUNCTUATION)))
        parts += [redact(text[start:last]), text[last:end]]
    return _ENCODED.sub(_decoded, "".join([*parts, text[end:]]))


def _end_of_address(text: str, start: int, behind: int) -> int:
    """Index behind an address in a text; ``behind`` is an index in it."""
    quote_mark = text[start - 1 : start]
    if quote_mark in ("'", '"', "`"):
        line_end = text.find("\n", behind)
        closing = text.find(quote_mark, behind, None if line_end < 0 else line_end)
        if closing >= 0:
            return closing
    space = _SPACE.search(text, behind)
    return space.start() if space else len(text)


def _decoded(match: re.Match[str]) -> str:
    """A percent-encoded address, decoded and redacted if it has secrets."""
    address = unquote(match.group())
    shown = redact(address)
    return match.group() if shown == address else shown


def _secrets(addresses: Iterable[str]) -> dict[str, str]:
    """User info, query, and parts of both, long ones first, each with its replacement."""
    found: dict[str, str] = {}
    for link in (link for address in addresses for link in _LINK.split(address)):
        _, login, _, query = _split(link)
        user, _, password = login.rstrip("@").partition(":")
        values = [value.rpartition("=")[2] for value in re.split(r"[?#&;]", query)]
        # Libraries take a raw slash for the end of the host, and show what stands before it.
        pieces = {login.rstrip("@"), user, password, *re.split(r"[/?#@]", password), query[1:], *values}
        pieces |= {form(piece) for piece in pieces for form in (unquote, quote)}
        found |= {piece: HIDDEN for piece in pieces if len(piece) >= MIN_SECRET}
        if login:
            found[login] = ""
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))
