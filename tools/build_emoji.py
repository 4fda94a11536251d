"""Build the bundled `emoji` data set: every emoji that Noto Color Emoji draws, 64x64, with names and labels.

    apt-get install fonts-noto-color-emoji
    npm pack emojibase-data@17.0.0 && tar xf emojibase-data-17.0.0.tgz
    pip install emoji==2.16.0 pillow
    python tools/build_emoji.py --emojibase package --out smalti/data/emoji

Sources: pictures from the font (SIL Open Font License 1.1, images Apache-2.0), names from PyPI's `emoji`
(BSD-3-Clause, from Unicode CLDR), groups and subgroups from npm's `emojibase-data` (MIT). Nothing else is needed to
use the set: the result is a sheet of tiles (`tiles.webp`) and one JSON table (`table.json.gz`), in Unicode's order.
"""

import argparse
import gzip
import hashlib
import io
import json
from pathlib import Path

import emoji
from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
STRIKE_PX = 109  # the only size that the font's bitmaps have; a glyph is then 136 x 128 pixels
CANVAS_PX, TILE_PX, SHEET_COLUMNS = 136, 64, 62
QUALITY = 94

SKIN_TONES = {0x1F3FB, 0x1F3FC, 0x1F3FD, 0x1F3FE, 0x1F3FF}
JOINER, EMOJI_STYLE, MALE, FEMALE, FACING_RIGHT = 0x200D, 0xFE0F, 0x2642, 0x2640, 0x27A1
PERSON = 0x1F9D1
PERSONS = {0x1F468, 0x1F469, PERSON}  # man, woman, person
SAME_CONCEPT = {  # one code point and a sequence that draw the same thing
    (0x1F46B,): (PERSON, 0x1F91D, PERSON),  # couples holding hands
    (0x1F46C,): (PERSON, 0x1F91D, PERSON),
    (0x1F46D,): (PERSON, 0x1F91D, PERSON),
    (PERSON, 0x2764, 0x1F48B, PERSON): (0x1F48F,),  # kiss
    (PERSON, 0x2764, PERSON): (0x1F491,),  # couple with heart
    (0x1FAF1, 0x1FAF2): (0x1F91D,),  # handshake of two skin tones
}


def base_concept(character: str) -> str:
    """The concept behind an emoji: skin tone, gender and direction taken away; twins share it."""
    drop = SKIN_TONES | {JOINER, EMOJI_STYLE, MALE, FEMALE, FACING_RIGHT}
    points = tuple(PERSON if ord(c) in PERSONS else ord(c) for c in character if ord(c) not in drop)
    points = SAME_CONCEPT.get(points, points) or tuple(map(ord, character))
    return "-".join(f"{point:x}" for point in points)


def read_groups(emojibase: Path) -> dict[str, tuple[int, str, str]]:
    """Map an emoji (without style selectors) to its (order, group, subgroup)."""
    names = json.loads((emojibase / "meta/groups.json").read_text())
    groups = {}
    for entry in json.loads((emojibase / "en/data.json").read_text()):
        for twin in [entry, *entry.get("skins", [])]:
            if "group" in twin:
                bare = "".join(chr(int(point, 16)) for point in twin["hexcode"].split("-"))
                group, subgroup = names["groups"][str(twin["group"])], names["subgroups"][str(twin["subgroup"])]
                groups[bare.replace(chr(EMOJI_STYLE), "")] = (twin["order"], group, subgroup)
    return groups


def draw(font: ImageFont.FreeTypeFont, character: str) -> Image.Image | None:
    """The emoji on white, or None when the font has no single glyph for it."""
    if font.getlength(character) > 140:
        return None
    canvas = Image.new("RGBA", (CANVAS_PX, CANVAS_PX), "white")
    ImageDraw.Draw(canvas).text(
        (CANVAS_PX // 2, CANVAS_PX // 2), character, font=font, anchor="mm", embedded_color=True
    )
    tile = canvas.convert("RGB").resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
    return None if tile.getextrema() == ((255, 255),) * 3 else tile


def split_concepts(rows: list[dict]) -> dict[str, str]:
    """Assign each concept to train (80 %), validation (10 %) or test (10 %), evenly inside every group."""
    by_group: dict[str, set[str]] = {}
    for row in rows:
        by_group.setdefault(row["group"], set()).add(row["concept"])
    split: dict[str, str] = {}
    for concepts in by_group.values():
        ordered = sorted(concepts - set(split), key=lambda concept: hashlib.sha256(concept.encode()).hexdigest())
        for rank, concept in enumerate(ordered):
            split[concept] = {0: "test", 1: "validation"}.get(rank % 10, "train")
    return split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emojibase", type=Path, required=True)
    parser.add_argument("--font", default=FONT)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    font = ImageFont.truetype(args.font, STRIKE_PX)
    groups = read_groups(args.emojibase)
    emoji.config.load_language()
    rows, tiles, seen = [], [], set()
    for character, facts in emoji.EMOJI_DATA.items():
        place = groups.get(character.replace(chr(EMOJI_STYLE), ""))
        if facts["status"] != emoji.STATUS["fully_qualified"] or place is None:
            continue
        tile = draw(font, character)
        if tile is None or tile.tobytes() in seen:
            continue
        seen.add(tile.tobytes())
        captions = {lang: facts[lang].strip(":").replace("_", " ") for lang in emoji.LANGUAGES if lang in facts}
        order, group, subgroup = place
        rows.append({"emoji": character, "order": order, "group": group, "subgroup": subgroup,
                     "concept": base_concept(character), "captions": captions, "tile": tile})  # fmt: skip
    rows.sort(key=lambda row: row.pop("order"))
    tiles = [row.pop("tile") for row in rows]
    split = split_concepts(rows)
    for row in rows:
        row["split"] = split[row["concept"]]

    sheet_rows = -(-len(tiles) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * TILE_PX, sheet_rows * TILE_PX), "white")
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % SHEET_COLUMNS * TILE_PX, index // SHEET_COLUMNS * TILE_PX))
    picture = io.BytesIO()
    sheet.save(picture, "WEBP", quality=QUALITY, method=6, use_sharp_yuv=True)
    table = {"tile_px": TILE_PX, "columns": SHEET_COLUMNS, "count": len(rows), "languages": list(emoji.LANGUAGES),
             "tiles_sha256": hashlib.sha256(picture.getvalue()).hexdigest(), "rows": rows}  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "tiles.webp").write_bytes(picture.getvalue())
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    (args.out / "table.json.gz").write_bytes(gzip.compress(text, mtime=0))
    counts = {name: sum(row["split"] == name for row in rows) for name in ("train", "validation", "test")}
    print(f"{len(rows)} emoji, {len(split)} concepts, {counts}, {len(picture.getvalue()):,} bytes of tiles")


if __name__ == "__main__":
    main()
