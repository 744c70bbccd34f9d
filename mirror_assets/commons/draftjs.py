"""Draft.js bodies as Markdown: one column in, one column and its faults out.

The text is the one that the platform's own tools make of a body (`draft-js-export-markdown` 1.4),
because readers compare it with older texts. The maintained Python library, `draftjs_exporter`,
makes CommonMark of its own: it nests styles in alphabetical order, moves blanks out of them,
escapes, indents, numbers and separates otherwise, fences code, knows no mentions, and refuses
entities that overlap. Of the texts we must reach it gives the plain ones only; replacing its
blocks, styles, entities and escapes would leave nothing of it.

Unlike the original, a body that is broken is never rendered in part: its row has no text (NULL)
and a fault. Styles and entities that nobody knows are plain text and do not divide a style.

Offsets and lengths count code points, as Draft.js's ``convertToRaw`` writes them: an emoji is one,
although JavaScript's own strings count it as two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from mirror_assets.mirroring.catalog import TEXT_COLUMN
from mirror_assets.mirroring.errors import DriftRefused

if TYPE_CHECKING:
    import pyarrow as pa

BODY_COLUMN = "contentState"

_UNORDERED = "unordered-list-item"
_ORDERED = "ordered-list-item"
_CODE_BLOCK = "code-block"
_PREFIXES = {
    "header-one": "# ",
    "header-two": "## ",
    "header-three": "### ",
    "header-four": "#### ",
    "header-five": "##### ",
    "header-six": "###### ",
    "blockquote": " > ",
    _CODE_BLOCK: "    ",
}
_INDENT = "    "
_EMPTY_BLOCK = "\u200b"
#: A paragraph that holds nothing but a byte order mark stands for an empty line.
_MARKED_LINE = "\n\ufeff\n"
#: No editor nests deeper; what claims to would only fill the memory with blanks.
_DEEPEST = 64

#: From the inside out.
_MARKS = {"BOLD": "**", "UNDERLINE": "++", "ITALIC": "_", "STRIKETHROUGH": "~~"}
_BITS = {style: 1 << n for n, style in enumerate([*_MARKS, "CODE"])}
_CODE = _BITS["CODE"]
_SPECIAL = re.compile(r"[*_`]")
_ENTITIES = {"LINK": "LINK", "IMAGE": "IMAGE", "EMBED": "EMBED", "embed": "EMBED"}


@dataclass(frozen=True)
class Fault:
    """A body without text: ``index`` of its row in the batch, and why, without any of its values.

    ``kind`` is ``draftjs_json`` (cannot be parsed), ``draftjs_shape`` (not a Draft.js body) or
    ``draftjs_range`` (a style or entity that points outside the text or at nothing).
    """

    index: int
    kind: str
    sentence: str


class _BrokenError(ValueError):
    """Why a body has no text."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence


class _Block(NamedTuple):
    kind: str
    depth: int
    content: str

    @property
    def listed(self) -> bool:
        return self.kind in (_UNORDERED, _ORDERED)


class _Entity(NamedTuple):
    """``key`` tells entities with equal data apart; ``text`` is a mention's."""

    kind: str
    key: str
    data: Mapping[str, Any]
    text: str = ""


class _Span(NamedTuple):
    """A part of a text, in code points."""

    start: int
    end: int


def transform(
    batch: pa.RecordBatch, column: str = BODY_COLUMN
) -> tuple[pa.RecordBatch, list[Fault]]:
    """The batch with its column ``text`` set (replaced in place, or appended), and the faults.

    Every row is kept; a row with a fault has the text NULL. Raises DriftRefused when the column is
    missing or does not hold text.
    """
    import pyarrow as pa  # here, because it would slow down loading the code location

    bodies = _text_column(batch, column)
    texts, faults = markdown_of(bodies.to_pylist())
    kind = pa.large_string() if pa.types.is_large_string(bodies.type) else pa.string()
    made, field = pa.array(texts, kind), pa.field(TEXT_COLUMN, kind)
    names = [name.lower() for name in batch.schema.names]  # warehouses see no difference in case
    if TEXT_COLUMN not in names:
        return batch.append_column(field, made), faults
    return batch.set_column(names.index(TEXT_COLUMN), field, made), faults


def _text_column(batch: pa.RecordBatch, column: str) -> pa.Array:
    import pyarrow as pa

    if column not in batch.schema.names:
        raise DriftRefused(
            f"there is no column {column}",
            remedy="have the column restored, or leave the table out of the transformed ones",
        )
    bodies = batch.column(column)
    readable = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not any(is_text(bodies.type) for is_text in (*readable, pa.types.is_null)):
        raise DriftRefused(
            f"column {column} has the type {bodies.type}, not text",
            remedy="mirror the column as text, or leave the table out of the transformed ones",
        )
    return bodies


def markdown_of(bodies: Sequence[str | None]) -> tuple[list[str | None], list[Fault]]:
    """The text of every body, in order, None where there is a fault; and the faults.

    A missing body, ``null``, ``{}``, ``[]``, ``""`` and the empty string have the empty text.
    """
    texts: list[str | None] = []
    faults = []
    known: dict[str, str | tuple[str, str]] = {"": ""}
    for index, body in enumerate(bodies):
        found = known.get(body or "")
        if found is None:
            assert body is not None
            found = known[body] = _outcome(body)
        if isinstance(found, str):
            texts.append(found)
        else:
            texts.append(None)
            faults.append(Fault(index, *found))
    return texts, faults


def _outcome(body: str) -> str | tuple[str, str]:
    """The text, or the kind and sentence of the fault: an exception kept would keep its frames."""
    try:
        return _markdown(body)
    except _BrokenError as error:
        return error.kind, error.sentence


def _markdown(body: str) -> str:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _BrokenError("draftjs_json", "the body is not JSON") from None
    if document is None or document in ({}, [], ""):
        return ""
    if not isinstance(document, dict):
        raise _shape("the body is not an object")
    raw_blocks, entities = document.get("blocks"), document.get("entityMap")
    if not isinstance(raw_blocks, list):
        raise _shape("the body has no list of blocks")
    if not isinstance(entities, dict):
        raise _shape("the body has no map of entities")
    if not all(isinstance(entity, dict) for entity in entities.values()):
        raise _shape("an entity is not an object")
    blocks = [
        _block(raw, entities, f"block {number}") for number, raw in enumerate(raw_blocks, start=1)
    ]
    return "".join(_lines(blocks)).replace(_MARKED_LINE, _EMPTY_BLOCK)


# --- Blocks ---------------------------------------------------------------------------------


def _block(raw: Any, entities: Mapping[str, Any], place: str) -> _Block:
    if not isinstance(raw, dict):
        raise _shape(f"{place} is not an object")
    text, kind, depth = raw.get("text"), raw.get("type") or "unstyled", raw.get("depth") or 0
    if not isinstance(text, str):
        raise _shape(f"{place} has no text")
    if not isinstance(kind, str):
        raise _shape(f"{place} has a type that is not a word")
    if type(depth) is not int or not 0 <= depth <= _DEEPEST:
        raise _shape(f"{place} has no depth between 0 and {_DEEPEST}")
    if raw.get("children"):
        raise _shape(f"{place} holds other blocks")
    return _Block(kind, depth, _content(raw, text, kind, entities, place) or _EMPTY_BLOCK)


def _lines(blocks: Sequence[_Block]) -> Iterator[str]:
    """The parts of the text: what separates each block from the one before, prefix and content."""
    previous = None
    open_lists: list[tuple[int, str, int]] = []
    for block in blocks:
        if previous is not None:
            yield _separator(previous, block)
        number = _number(open_lists, block)
        yield _prefix(block, number)
        yield block.content
        previous = block


def _separator(previous: _Block, block: _Block) -> str:
    """A list goes on without an empty line, and so does one of the other type nested in it."""
    if not (block.listed and previous.listed):
        return "\n\n"
    if previous.kind == block.kind or previous.depth == block.depth - 1:
        return "\n"
    return "\n\n\n"


def _number(open_lists: list[tuple[int, str, int]], block: _Block) -> int:
    """The block's number in its list; ``open_lists`` holds depth, type and count, outermost first.

    Deeper items do not interrupt a list; a shallower item, or another type at its depth, does.
    """
    if not block.listed:
        open_lists.clear()
        return 0
    while open_lists and open_lists[-1][0] > block.depth:
        open_lists.pop()
    count = 1
    if open_lists and open_lists[-1][0] == block.depth:
        _, kind, before = open_lists.pop()
        count += before if kind == block.kind else 0
    open_lists.append((block.depth, block.kind, count))
    return count


def _prefix(block: _Block, number: int) -> str:
    if block.kind == _UNORDERED:
        return f"{_INDENT * block.depth}- "
    if block.kind == _ORDERED:
        return f"{_INDENT * block.depth}{number % 10}. "
    return _PREFIXES.get(block.kind, "")


# --- Inside a block -------------------------------------------------------------------------


def _content(
    raw: Mapping[str, Any],
    text: str,
    kind: str,
    entities: Mapping[str, Any],
    place: str,
) -> str:
    styles = _ranges(raw, "inlineStyleRanges", f"{place}, styles")
    owners = _ranges(raw, "entityRanges", f"{place}, entities")
    verbatim = kind == _CODE_BLOCK
    if not styles and not owners:
        return text if verbatim else _escaped(text)
    styled = [
        (_span(entry, text, where), _style_bit(entry, where))
        for where, entry in _numbered(styles, f"{place}, style")
    ]
    owned = [
        (_span(entry, text, where), _entity(entry, entities, where))
        for where, entry in _numbered(owners, f"{place}, entity")
    ]
    pieces = _pieces(text, styled, owned)
    runs = groupby(pieces, key=lambda piece: piece[0])
    return "".join(_run(owner, [piece[1:] for piece in run], verbatim) for owner, run in runs)


def _pieces(
    text: str,
    styled: Sequence[tuple[_Span, int]],
    owned: Sequence[tuple[_Span, _Entity | None]],
) -> Iterator[tuple[_Entity | None, int, str]]:
    """Entity, styles (bits) and text from one boundary to the next; the later entity wins."""
    spans = [span for span, _ in (*styled, *owned)]
    cuts = sorted({0, len(text), *(end for span in spans for end in span)})
    place = {cut: n for n, cut in enumerate(cuts)}
    bits = [0] * len(cuts)
    owners: list[_Entity | None] = [None] * len(cuts)
    for span, bit in styled:
        for n in range(place[span.start], place[span.end]):
            bits[n] |= bit
    for span, entity in owned:
        first, last = place[span.start], place[span.end]
        owners[first:last] = [entity] * (last - first)
    for n in range(len(cuts) - 1):
        yield owners[n], bits[n], text[cuts[n] : cuts[n + 1]]


def _run(owner: _Entity | None, pieces: Sequence[tuple[int, str]], verbatim: bool) -> str:
    """The text under one entity, or under none."""
    if owner is not None and owner.kind == "MENTION":
        return owner.text if verbatim else _escaped(owner.text)
    content = "".join(
        _styled("".join(text for _, text in same), bits, verbatim)
        for bits, same in groupby(pieces, key=lambda piece: piece[0])
    )
    return content if owner is None else _owned(owner, content)


def _styled(text: str, bits: int, verbatim: bool) -> str:
    if verbatim:
        return text
    if bits & _CODE:
        return "`" + text.replace("`", "\\`") + "`"
    content = _escaped(text)
    if not bits:
        return content
    for style, mark in _MARKS.items():
        if bits & _BITS[style]:
            content = f"{mark}{content}{mark}"
    return content


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", text)


def _owned(owner: _Entity, content: str) -> str:
    if owner.kind == "LINK":
        url = _url(owner.data.get("href") or owner.data.get("url") or "")
        title = owner.data.get("title")
        return f"[{content}]({url}{_title(title)})"
    if owner.kind == "IMAGE":
        alt = _quoted(owner.data.get("alt") or "")
        return f"![{alt}]({_url(owner.data.get('src') or '')})"
    return owner.data.get("url") or content


def _title(title: str | None) -> str:
    return f' "{_quoted(title)}"' if title else ""


def _quoted(text: str) -> str:
    return text.replace('"', '\\"')


def _url(url: str) -> str:
    return url.replace("(", "%28").replace(")", "%29")


# --- Ranges ---------------------------------------------------------------------------------


def _ranges(raw: Mapping[str, Any], name: str, place: str) -> list[Any]:
    found = raw.get(name) or []
    if not isinstance(found, list):
        raise _shape(f"{place} are not a list")
    return found


def _numbered(entries: Sequence[Any], place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, entry in enumerate(entries, start=1):
        where = f"{place} {number}"
        if not isinstance(entry, dict):
            raise _shape(f"{where} is not an object")
        yield where, entry


def _span(entry: Mapping[str, Any], text: str, where: str) -> _Span:
    offset, length = entry.get("offset"), entry.get("length")
    if type(offset) is not int or type(length) is not int or length < 0:
        raise _range(f"{where} has no offset and length that count characters")
    if not 0 <= offset <= offset + length <= len(text):
        raise _range(f"{where} begins or ends outside the text")
    return _Span(offset, offset + length)


def _style_bit(entry: Mapping[str, Any], where: str) -> int:
    style = entry.get("style")
    if not isinstance(style, str):
        raise _shape(f"{where} has no name")
    return _BITS.get(style, 0)


def _entity(entry: Mapping[str, Any], entities: Mapping[str, Any], where: str) -> _Entity | None:
    """What a range belongs to; None for an entity that changes nothing."""
    key = entry.get("key")
    if type(key) not in (int, str) or str(key) not in entities:
        raise _range(f"{where} names an entity that the body does not have")
    found = entities[str(key)]
    data = found.get("data") or {}
    if not isinstance(data, dict):
        raise _shape(f"{where} has data that are not an object")
    if data.get("mention"):
        return _Entity("MENTION", str(key), data, f"@{_mentioned(data['mention'], where)}")
    kind = found.get("type")
    known = _ENTITIES.get(kind) if isinstance(kind, str) else None
    if known is None:
        return None
    for name in ("href", "url", "title", "src", "alt"):
        if not isinstance(data.get(name) or "", str):
            raise _shape(f"{where} has a {name} that is not text")
    return _Entity(known, str(key), data)


def _mentioned(mention: Any, where: str) -> int | str:
    identity = mention.get("id") if isinstance(mention, dict) else None
    if type(identity) is int or (isinstance(identity, str) and identity):
        return identity
    raise _shape(f"{where} mentions nobody")


def _shape(sentence: str) -> _BrokenError:
    return _BrokenError("draftjs_shape", sentence)


def _range(sentence: str) -> _BrokenError:
    return _BrokenError("draftjs_range", sentence)
