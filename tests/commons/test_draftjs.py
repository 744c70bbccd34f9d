"""Draft.js bodies become Markdown by the golden values, or a fault that tells no value."""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror_assets.commons.draftjs import Fault, markdown_of, transform
from mirror_assets.mirroring.errors import DriftRefused
from mirror_assets.sample import commons

ZW = "\u200b"
UL, OL = "unordered-list-item", "ordered-list-item"
STYLES = ("BOLD", "UNDERLINE", "ITALIC", "STRIKETHROUGH")
Json = dict[str, Any]


def block(
    text: Any,
    kind: Any = "unstyled",
    depth: Any = 0,
    styles: list[tuple[Any, Any, Any]] | None = None,
    entities: list[tuple[Any, Any, Any]] | None = None,
) -> Json:
    return {
        "text": text,
        "type": kind,
        "depth": depth,
        "inlineStyleRanges": [
            {"offset": offset, "length": length, "style": style}
            for offset, length, style in styles or []
        ],
        "entityRanges": [
            {"offset": offset, "length": length, "key": key}
            for offset, length, key in entities or []
        ],
    }


def body(*blocks: Any, entities: Any = None) -> str:
    found = {} if entities is None else entities
    return json.dumps({"blocks": list(blocks), "entityMap": found}, ensure_ascii=False)


def entity(kind: str, **data: Any) -> Json:
    return {"type": kind, "mutability": "MUTABLE", "data": data}


def mention(identity: Any) -> Json:
    return entity("mention", mention={"id": identity, "name": "a person"})


def text_of(document: str) -> str:
    [text], faults = markdown_of([document])
    assert faults == []
    assert text is not None
    return text


def fault_of(document: str) -> Fault:
    [text], [fault] = markdown_of([document])
    assert text is None
    return fault


ALL_STYLES = [(0, 3, style) for style in STYLES]
GOLDEN = {
    "E-20": (body(block("First"), block("Second")), "First\n\nSecond"),
    "E-21": (body(block("A"), block(""), block("B")), f"A\n\n{ZW}\n\nB"),
    "E-22": (body(block("A"), block("\ufeff"), block("B")), f"A\n{ZW}\nB"),
    "E-23": (body(block("a bold b", styles=[(1, 6, "BOLD")])), "a** bold **b"),
    "E-24": (body(block("abc", styles=ALL_STYLES)), "~~_++**abc**++_~~"),
    "E-25": (body(block("2*3 = 6_x")), r"2\*3 = 6\_x"),
    "E-26": (
        body(block("Intro"), block("one", UL), block("two", UL), block("sub", UL, 1), block("End")),
        "Intro\n\n- one\n- two\n    - sub\n\nEnd",
    ),
    "E-27": (
        body(*(block(f"i{n}", OL) for n in range(1, 12))),
        "\n".join(f"{n % 10}. i{n}" for n in range(1, 12)),
    ),
    "E-28": (body(block("u", UL), block("o", OL)), "- u\n\n\n1. o"),
    "E-29": (
        body(
            block("Hi Ana Diaz and Bo Lee, please call", entities=[(3, 8, 0), (16, 6, 1)]),
            entities={"0": mention("id1"), "1": mention("id2")},
        ),
        "Hi @id1 and @id2, please call",
    ),
    "E-30": (
        body(
            block("Hi Ana Diaz!", styles=[(0, 12, "BOLD")], entities=[(3, 8, 0)]),
            entities={"0": mention("u-1")},
        ),
        "**Hi **@u-1**!**",
    ),
    "E-31": (
        body(
            block("see site", entities=[(4, 4, 0)]),
            entities={"0": entity("LINK", url="https://ex.test/a(b)")},
        ),
        "see [site](https://ex.test/a%28b%29)",
    ),
    "E-32": (body(block("x = *1*", "code-block")), "    x = *1*"),
    "E-33": (body(), ""),
}


@pytest.mark.parametrize(("document", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_golden(document: str, expected: str) -> None:
    assert text_of(document) == expected


def test_all_golden_values_in_one_column() -> None:
    texts, faults = markdown_of([document for document, _ in GOLDEN.values()])
    assert texts == [expected for _, expected in GOLDEN.values()]
    assert faults == []


RULES = {
    "headings": (
        body(*(block(n, f"header-{n}") for n in ("one", "two", "three", "four", "five", "six"))),
        "# one\n\n## two\n\n### three\n\n#### four\n\n##### five\n\n###### six",
    ),
    "blockquote": (body(block("q", "blockquote")), " > q"),
    "unknown type": (body(block("plain", "a-new-type")), "plain"),
    "no type, depth or ranges": ('{"blocks":[{"text":"a"}],"entityMap":{}}', "a"),
    "empty item": (body(block("", UL)), f"- {ZW}"),
    "only some characters are escaped": (
        body(block("`a` # b > c ~ + [d]")),
        r"\`a\` # b > c ~ + [d]",
    ),
    "escaped inside marks": (body(block("a*b", styles=[(0, 3, "BOLD")])), r"**a\*b**"),
    "code": (body(block("a `b` c", styles=[(2, 3, "CODE")])), r"a `\`b\`` c"),
    "code wins over marks": (
        body(block("x*y", styles=[(0, 3, "BOLD"), (0, 3, "CODE")])),
        "`x*y`",
    ),
    "a code block has no styles": (
        body(block("x*y", "code-block", styles=[(0, 3, "BOLD")])),
        "    x*y",
    ),
    "overlapping styles": (
        body(block("abcd", styles=[(0, 3, "BOLD"), (1, 3, "ITALIC")])),
        "**a**_**bc**__d_",
    ),
    "one style in two ranges": (
        body(block("abcd", styles=[(0, 2, "BOLD"), (2, 2, "BOLD"), (0, 4, "ITALIC")])),
        "_**abcd**_",
    ),
    "an unknown style changes nothing": (
        body(block("ab", styles=[(0, 2, "BOLD"), (1, 1, "color-red")])),
        "**ab**",
    ),
    "an unknown entity changes nothing": (
        body(
            block("ab", styles=[(0, 2, "BOLD")], entities=[(1, 1, 0)]),
            entities={"0": entity("HASHTAG", url="x")},
        ),
        "**ab**",
    ),
    "a range of no length": (
        body(
            block("ab", styles=[(1, 0, "BOLD")], entities=[(1, 0, 0)]),
            entities={"0": mention("u")},
        ),
        "ab",
    ),
    "a list begins again after another block": (
        body(block("a", OL), block("b", OL), block("p"), block("c", OL)),
        "1. a\n2. b\n\np\n\n1. c",
    ),
    "a list goes on after deeper items": (
        body(block("a", OL), block("x", OL, 1), block("b", OL), block("y", OL, 1)),
        "1. a\n    1. x\n2. b\n    1. y",
    ),
    "a list of the other type nested directly": (
        body(block("u", UL), block("o", OL, 1), block("v", UL)),
        "- u\n    1. o\n\n\n- v",
    ),
    "a deeper list of the other type does not restart the numbers": (
        body(block("a", OL), block("x", UL, 1), block("b", OL)),
        "1. a\n    - x\n\n\n2. b",
    ),
    "another type at the depth restarts the numbers": (
        body(block("a", OL), block("x", UL), block("b", OL)),
        "1. a\n\n\n- x\n\n\n1. b",
    ),
    "link with title and href": (
        body(
            block("a site", styles=[(2, 4, "BOLD")], entities=[(2, 4, 0)]),
            entities={"0": entity("LINK", href="h", url="u", title='say "x"')},
        ),
        r'a [**site**](h "say \"x\"")',
    ),
    "link without address": (
        body(block("ab", entities=[(0, 2, 0)]), entities={"0": entity("LINK")}),
        "[ab]()",
    ),
    "image": (
        body(
            block(" ", "atomic", entities=[(0, 1, 0)]),
            entities={"0": entity("IMAGE", src="s(1)", alt="scan")},
        ),
        "![scan](s%281%29)",
    ),
    "embed": (
        body(block("x", entities=[(0, 1, 0)]), entities={"0": entity("EMBED", url="u_(1)")}),
        "u_(1)",
    ),
    "embed as its constant spells it": (
        body(block("x", entities=[(0, 1, 0)]), entities={"0": entity("embed", url="u")}),
        "u",
    ),
    "two links side by side": (
        body(
            block("ab", entities=[(0, 1, 0), (1, 1, 1)]),
            entities={"0": entity("LINK", url="u"), "1": entity("LINK", url="u")},
        ),
        "[a](u)[b](u)",
    ),
    "the later entity wins": (
        body(
            block("abc", entities=[(0, 3, 0), (1, 1, 1)]),
            entities={"0": entity("LINK", url="u"), "1": mention("m")},
        ),
        "[a](u)@m[c](u)",
    ),
    "mentions side by side": (
        body(
            block("ab", entities=[(0, 1, 0), (1, 1, 1)]),
            entities={"0": mention(7), "1": mention("m_1")},
        ),
        r"@7@m\_1",
    ),
    "a mention in a code block": (
        body(block("ab", "code-block", entities=[(0, 2, 0)]), entities={"0": mention("m_1")}),
        "    @m_1",
    ),
    "no mention": (
        body(block("ab", entities=[(0, 2, 0)]), entities={"0": entity("mention", mention=None)}),
        "ab",
    ),
    "the mark at both ends": (
        body(block("\ufeff"), block("A"), block("\ufeff")),
        "\ufeff\n\nA\n\n\ufeff",
    ),
    "two marked lines": (
        body(block("A"), block("\ufeff"), block("\ufeff"), block("B")),
        f"A\n{ZW}{ZW}\nB",
    ),
    "a block's own line breaks": (body(block("a\nb\n"), block("c")), "a\nb\n\n\nc"),
}


@pytest.mark.parametrize(("document", "expected"), RULES.values(), ids=RULES)
def test_rules(document: str, expected: str) -> None:
    assert text_of(document) == expected


@pytest.mark.parametrize("empty", [None, "", "null", "{}", "[]", '""', " {} "])
def test_nothing_is_the_empty_text(empty: str | None) -> None:
    assert markdown_of([empty]) == ([""], [])


# --- Offsets --------------------------------------------------------------------------------


def test_an_emoji_counts_one() -> None:
    document = body(block("🙂💪🏽 bold x", styles=[(4, 4, "BOLD"), (0, 1, "ITALIC")]))
    assert text_of(document) == "_🙂_💪🏽 **bold** x"


def test_a_mention_after_an_emoji_is_found_by_code_points() -> None:
    document = body(block("🙂 Ana!", entities=[(2, 3, 0)]), entities={"0": mention("u-1")})
    assert text_of(document) == "🙂 @u-1!"


@pytest.mark.parametrize("units", [4, 5])
def test_a_range_counted_in_utf_16_units_that_leaves_the_text_is_a_fault(units: int) -> None:
    """Another client's offsets, where they can be told: the text has three code points."""
    found = fault_of(body(block("a🙂b", styles=[(0, units, "BOLD")])))
    assert (found.kind, found.sentence) == (
        "draftjs_range",
        "block 1, style 1 begins or ends outside the text",
    )


# --- Faults ---------------------------------------------------------------------------------

CANARY = "Zebedee-Quince"
LINKED = {"0": entity("LINK", url=CANARY)}
BROKEN = {
    "cut off": ("draftjs_json", f'{{"blocks":[{{"text":"{CANARY}'),
    "blank": ("draftjs_json", " "),
    "half an emoji in the text": ("draftjs_json", r'{"blocks":[{"text":"\ud83d"}],"entityMap":{}}'),
    "not a number": ("draftjs_json", '{"blocks":NaN,"entityMap":{}}'),
    "nested without end": ("draftjs_json", "[" * 5000 + "]" * 5000),
    "word": ("draftjs_shape", f'"{CANARY}"'),
    "number": ("draftjs_shape", "0"),
    "false": ("draftjs_shape", "false"),
    "list": ("draftjs_shape", f'["{CANARY}"]'),
    "an old client's": ("draftjs_shape", f'{{"text":"{CANARY}","version":1}}'),
    "no map of entities": ("draftjs_shape", json.dumps({"blocks": [block(CANARY)]})),
    "no blocks": ("draftjs_shape", '{"entityMap":{}}'),
    "blocks in a map": ("draftjs_shape", '{"blocks":{},"entityMap":{}}'),
    "entities in a list": ("draftjs_shape", body(block(CANARY), entities=[])),
    "an entity is a word": ("draftjs_shape", body(block("a"), entities={"0": CANARY})),
    "a block is a word": ("draftjs_shape", body(CANARY)),
    "no text": ("draftjs_shape", body(block(None))),
    "text is a number": ("draftjs_shape", body(block(5))),
    "type is a number": ("draftjs_shape", body(block(CANARY, 5))),
    "depth below zero": ("draftjs_shape", body(block(CANARY, UL, -1))),
    "depth beyond reason": ("draftjs_shape", body(block(CANARY, UL, 10**9))),
    "depth is a word": ("draftjs_shape", body(block(CANARY, UL, "1"))),
    "blocks in blocks": ("draftjs_shape", body({**block("a"), "children": [block(CANARY)]})),
    "styles in a map": ("draftjs_shape", body({**block(CANARY), "inlineStyleRanges": {"a": 1}})),
    "a style is a word": ("draftjs_shape", body({**block(CANARY), "inlineStyleRanges": ["a"]})),
    "a style without name": ("draftjs_shape", body(block(CANARY, styles=[(0, 1, None)]))),
    "style beyond the text": ("draftjs_range", body(block(CANARY, styles=[(1, 99, "BOLD")]))),
    "style before the text": ("draftjs_range", body(block(CANARY, styles=[(-1, 2, "BOLD")]))),
    "unknown style beyond the text": ("draftjs_range", body(block("a", styles=[(0, 9, CANARY)]))),
    "negative length": ("draftjs_range", body(block(CANARY, styles=[(2, -1, "BOLD")]))),
    "offset is a word": ("draftjs_range", body(block(CANARY, styles=[("0", 1, "BOLD")]))),
    "offset is true": ("draftjs_range", body(block(CANARY, styles=[(True, 1, "BOLD")]))),
    "huge offset": ("draftjs_range", body(block(CANARY, styles=[(10**40, 1, "BOLD")]))),
    "entity beyond the text": (
        "draftjs_range",
        body(block("a", entities=[(0, 2, 0)]), entities=LINKED),
    ),
    "entity that is not there": (
        "draftjs_range",
        body(block("a", entities=[(0, 1, 1)]), entities=LINKED),
    ),
    "entity without key": (
        "draftjs_range",
        body(block("a", entities=[(0, 1, None)]), entities=LINKED),
    ),
    "mention of nobody": (
        "draftjs_shape",
        body(
            block("a", entities=[(0, 1, 0)]), entities={"0": entity("m", mention={"name": CANARY})}
        ),
    ),
    "mention by a list": (
        "draftjs_shape",
        body(block("a", entities=[(0, 1, 0)]), entities={"0": mention([CANARY])}),
    ),
    "address is a number": (
        "draftjs_shape",
        body(block("a", entities=[(0, 1, 0)]), entities={"0": entity("LINK", url=5)}),
    ),
    "data are a word": (
        "draftjs_shape",
        body(block("a", entities=[(0, 1, 0)]), entities={"0": {"type": "LINK", "data": CANARY}}),
    ),
}


@pytest.mark.parametrize(("kind", "document"), BROKEN.values(), ids=BROKEN)
def test_broken_bodies_are_faults_without_values(kind: str, document: str) -> None:
    found = fault_of(document)
    assert found.kind == kind
    assert found.sentence
    assert CANARY not in found.sentence


def test_a_fault_names_its_place() -> None:
    good, bad = block("abc"), block("abc", styles=[(0, 1, "BOLD"), (2, 2, "BOLD")])
    assert fault_of(body(good, bad)).sentence.startswith("block 2, style 2 ")


def test_one_broken_body_leaves_the_others() -> None:
    good, bad = GOLDEN["E-20"][0], "{"
    texts, faults = markdown_of([good, bad, None, bad, good])
    assert texts == ["First\n\nSecond", None, "", None, "First\n\nSecond"]
    assert [found.index for found in faults] == [1, 3]


# --- Batches --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_a_batch_gains_a_column(kind: pa.DataType) -> None:
    bodies = pa.array([GOLDEN["E-24"][0], None, "{"], kind)
    batch = pa.record_batch({"id": [1, 2, 3], "contentState": bodies})
    made, faults = transform(batch)
    assert made.schema.names == ["id", "contentState", "text"]
    assert made.column("text").to_pylist() == ["~~_++**abc**++_~~", "", None]
    assert made.column("contentState").equals(bodies)
    assert [(found.index, found.kind) for found in faults] == [(2, "draftjs_json")]
    made.validate(full=True)


def test_the_text_of_before_is_replaced_in_its_place() -> None:
    batch = pa.record_batch(
        {"text": ["old", "old"], "body": [GOLDEN["E-25"][0], "["], "id": [1, 2]}
    )
    made, faults = transform(batch, "body")
    assert made.schema.names == ["text", "body", "id"]
    assert made.column("text").to_pylist() == [r"2\*3 = 6\_x", None]
    assert len(faults) == 1


@pytest.mark.parametrize("bodies", [pa.array([], pa.string()), pa.nulls(2)])
def test_batches_without_any_body(bodies: pa.Array) -> None:
    made, faults = transform(pa.record_batch({"contentState": bodies}))
    assert made.column("text").to_pylist() == [""] * len(bodies)
    assert faults == []


@pytest.mark.parametrize("columns", [{"id": [1]}, {"contentState": [1]}])
def test_a_batch_without_bodies_is_refused(columns: dict[str, list[int]]) -> None:
    with pytest.raises(DriftRefused, match="contentState"):
        transform(pa.record_batch(columns))


@pytest.mark.parametrize("table", commons.BODY_TABLES)
def test_only_the_broken_bodies_of_the_sample_have_no_text(table: str) -> None:
    rows = [commons.sample(0.01).row(table, i) for i in range(120)]
    [column] = [n for n, value in enumerate(rows[0]) if str(value).startswith('{"blocks"')]
    bodies = [None if row[column] is None else str(row[column]) for row in rows]
    texts, faults = markdown_of(bodies)
    assert [found.kind for found in faults] == ["draftjs_json", "draftjs_shape"]
    assert texts.count(None) == len(faults)
    assert any("**bold**" in text for text in texts if text)


# --- Properties -----------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("blocks", "entityMap", "text", "type", "depth", "data", "mention", "id"),
                    *("inlineStyleRanges", "entityRanges", "offset", "length", "style", "key"),
                    *("url", "title", "0"),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)
WRONG = JSON | st.sampled_from([0, 1, "0", "LINK", "BOLD", "code-block", UL, OL])


def _mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value of the right kind, or now and then something else."""
    return st.integers(0, 20).flatmap(lambda n: WRONG if n == 0 else right)


TEXT = st.text(st.sampled_from("ab *_`\n🙂é\ufeff#"), max_size=8)
RANGE = {"offset": _mostly(st.integers(0, 4)), "length": _mostly(st.integers(0, 4))}
BLOCK = st.fixed_dictionaries(
    {
        "text": _mostly(TEXT),
        "type": _mostly(st.sampled_from(["unstyled", UL, OL, "code-block", "header-two", "odd"])),
        "depth": _mostly(st.integers(0, 3)),
        "inlineStyleRanges": _mostly(
            st.lists(
                st.fixed_dictionaries(
                    {**RANGE, "style": _mostly(st.sampled_from([*STYLES, "CODE"]))}
                ),
                max_size=3,
            )
        ),
        "entityRanges": _mostly(
            st.lists(
                st.fixed_dictionaries({**RANGE, "key": _mostly(st.integers(0, 1))}), max_size=2
            )
        ),
    }
)
DOCUMENT = st.fixed_dictionaries(
    {
        "blocks": _mostly(st.lists(_mostly(BLOCK), max_size=4)),
        "entityMap": _mostly(
            st.fixed_dictionaries(
                {
                    "0": _mostly(st.just(entity("LINK", url="u"))),
                    "1": _mostly(st.just(mention("m"))),
                }
            )
        ),
    }
)


@given(
    st.lists(st.none() | st.text() | JSON.map(json.dumps) | DOCUMENT.map(json.dumps), max_size=5)
)
def test_every_body_has_a_text_or_a_fault(bodies: list[str | None]) -> None:
    texts, faults = markdown_of(bodies)
    assert len(texts) == len(bodies)
    assert [index for index, text in enumerate(texts) if text is None] == [
        found.index for found in faults
    ]
    pa.array(texts, pa.string()).validate(full=True)
    assert {found.kind for found in faults} <= {"draftjs_json", "draftjs_shape", "draftjs_range"}


@st.composite
def styled_texts(draw: st.DrawFn) -> tuple[str, list[tuple[int, int, str]]]:
    text = draw(st.text(st.sampled_from("abc 🙂é"), min_size=1, max_size=12))
    ranges = []
    for _ in range(draw(st.integers(0, 5))):
        start, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        ranges.append((start, end - start, draw(st.sampled_from([*STYLES, "CODE", "odd"]))))
    return text, ranges


TOKEN = re.compile(r"\*\*|\+\+|~~|_|`|[^*+~_`]+")
MARKS = {"**": "BOLD", "++": "UNDERLINE", "_": "ITALIC", "~~": "STRIKETHROUGH", "`": "CODE"}


@given(styled_texts())
def test_styles_are_balanced_and_stand_where_their_ranges_do(
    given_text: tuple[str, list[tuple[int, int, str]]],
) -> None:
    """An independent reading of the Markdown gives each character its styles back."""
    text, ranges = given_text
    found = text_of(body(block(text, styles=ranges)))
    opened: list[str] = []
    read: list[tuple[str, frozenset[str]]] = []
    for token in TOKEN.findall(found):
        if token not in MARKS:
            read += [(character, frozenset(opened)) for character in token]
        elif token in map(_mark, opened):
            assert _mark(opened.pop()) == token, "a mark closes what another has opened since"
        else:
            opened.append(MARKS[token])
    assert opened == []
    assert read == [(character, _styles_at(n, ranges)) for n, character in enumerate(text)]


def _mark(style: str) -> str:
    return next(mark for mark, name in MARKS.items() if name == style)


def _styles_at(place: int, ranges: list[tuple[int, int, str]]) -> frozenset[str]:
    """Code is shown as it is, without the other styles."""
    here = {style for start, length, style in ranges if start <= place < start + length} - {"odd"}
    return frozenset({"CODE"} if "CODE" in here else here)
