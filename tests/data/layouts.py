"""Folders as people have them, and what each of their files is to be taken for."""

from pathlib import Path

PNG, JPEG, HEIC = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
ANY = "by a hash"


def write(folder: Path, files: dict[str, object]) -> Path:
    """Write files: bytes, text, or None for what is only named like an image; "-> x" is a link."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str) and content.startswith("-> "):
            path.symlink_to(folder / content[3:])
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content or b"")
    return folder


# Each layout: images with the split, the class and the caption that are expected, then other files.
LAYOUTS: dict[str, tuple[dict[str, tuple], dict[str, object]]] = {
    "flat": ({"a.png": (ANY, "", None), "b.png": (ANY, "", None)}, {}),
    "classes": ({"cat/a.png": (ANY, "cat", None), "dog/a.png": (ANY, "dog", None)}, {}),
    "splits": ({"train/a.png": ("train", "", None), "val/a.png": ("validation", "", None)}, {}),
    "splits of classes": ({"train/cat/a.png": ("train", "cat", None), "test/dog/a.png": ("test", "dog", None)}, {}),
    "classes of splits": ({"cat/train/a.png": ("train", "cat", None), "cat/test/b.png": ("test", "cat", None)}, {}),
    "YOLO": ({"images/train/a.png": ("train", "", None), "images/val/b.png": ("validation", "", None)}, {
        "labels/train/a.txt": "0 0.5 0.5 0.1 0.1"}),
    "YOLO, the other way": ({"train/images/a.png": ("train", "", None), "valid/images/b.png": ("validation", "", None),
        "test/images/c.png": ("test", "", None)}, {"data.yaml": "x"}),
    "COCO": ({"train2017/1.jpg": ("train", "", None), "val2017/2.jpg": ("validation", "", None),
        "test2017/3.jpg": ("test", "", None)}, {"annotations/captions.json": "{}"}),
    "training and testing": ({"training/a.png": ("train", "", None), "testing/a.png": ("test", "", None)}, {}),
    "capitals": ({"Train/A/a.PNG": ("train", "A", None), "TEST/A/a.PNG": ("test", "A", None)}, {}),
    "CycleGAN": ({"trainA/a.jpg": ("train", "", None), "testB/b.jpg": ("test", "", None)}, {}),
    "camels": ({"TrainImages/a.jpg": ("train", "", None), "myTestSet/b.jpg": ("test", "", None)}, {}),
    "with numbers": ({"train_1/a.png": ("train", "", None), "test_2/a.png": ("test", "", None)}, {}),
    "with words": ({"x_train/a.png": ("train", "", None), "train-images/b.png": ("train", "", None),
        "flowers.test/c.png": ("test", "", None)}, {}),
    "one word": ({"trainset/a.png": ("train", "", None), "testdata/b.png": ("test", "", None),
        "trainval/c.png": ("train", "", None)}, {}),
    "long words": ({"validation/a.png": ("validation", "", None), "evaluation/b.png": ("test", "", None),
        "dev/c.png": ("validation", "", None), "holdout/d.png": ("test", "", None), "tests/e.png": ("test", "", None)},
        {}),
    "no splits": ({"latest/a.png": (ANY, "latest", None), "testimony/b.png": (ANY, "testimony", None),
        "trainers/c.png": (ANY, "trainers", None), "contest/d.png": (ANY, "contest", None)}, {}),
    "test in train": ({"train/test/a.png": ("test", "", None), "test/train/b.png": ("test", "", None),
        "val/train/c.png": ("validation", "", None)}, {}),
    "names of several": ({"train_test_split/train/a.png": ("train", "", None), "train_test_split/b.png":
        ("test", "", None), "train_val/c.png": ("train", "", None), "train_val/val/d.png": ("validation", "", None)},
        {}),
    "a class called test": ({"pen/a.png": (ANY, "pen", None), "test/b.png": ("test", "", None)}, {}),
    "tiny-imagenet": ({"train/n01/images/n01_0.JPEG": ("train", "n01", None),
        "val/images/val_0.JPEG": ("validation", "", None)}, {"wnids.txt": "n01"}),
    "split in the file's name": ({"train_1.png": ("train", "", None), "img-test-2.png": ("test", "", None),
        "val_3.png": ("validation", "", None), "4.png": (ANY, "", None)}, {}),
    "a file called test": ({"train/cat/test.png": ("test", "cat", None), "train/cat/val.png": ("train", "cat", None)},
        {}),
    "numbers as classes": ({"train/0/a.png": ("train", "0", None), "test/9/a.png": ("test", "9", None)}, {}),
    "containers": ({"data/images/cat/a.png": (ANY, "cat", None), "cat/images/b.png": (ANY, "cat", None),
        "batch_3/dog/c.png": (ANY, "dog", None)}, {}),
    "one name in two folders": ({"car/red/a.png": (ANY, "car/red", None), "fruit/red/b.png": (ANY, "fruit/red", None),
        "fruit/green/c.png": (ANY, "green", None)}, {}),
    "one name in two splits": ({"train/fruit/red/a.png": ("train", "red", None),
        "test/fruit/red/b.png": ("test", "red", None)}, {}),
    "other languages": ({"Trainingsdaten/a.png": ("train", "", None), "Testbilder/b.png": ("test", "", None),
        "Validierung/c.png": ("validation", "", None), "entrenamiento/d.png": ("train", "", None),
        "prueba/e.png": ("test", "", None), "validac\u0327a\u0303o/f.png": ("validation", "", None),
        "\u8bad\u7ec3\u96c6/g.png": ("train", "", None), "\u6d4b\u8bd5/h.png": ("test", "", None),
        "\u30c6\u30b9\u30c8/i.png": ("test", "", None)}, {}),
    "spellings": ({"hold-out/a.png": ("test", "", None), "Held Out/b.png": ("test", "", None),
        "imagesTr/c.png": ("train", "", None), "imagesTs/d.png": ("test", "", None), "t10k/e.png": ("test", "", None),
        "TESTv2/f.png": ("test", "", None), "VOCtest_06-Nov-2007/j.png": ("test", "", None),
        "VOCtrainval/k.png": ("train", "", None), "minival/l.png": ("validation", "", None),
        "CONTEST/m.png": (ANY, "CONTEST", None), "testphotos/g.png": ("test", "", None), "\uff54e\u200bst/h.png":
        ("test", "", None), "household outings/i.png": (ANY, "household outings", None)}, {}),
    "a class called train": ({"train/bus/a.png": ("train", "bus", None), "train/train/b.png": ("train", "train", None),
        "test/bus/c.png": ("test", "bus", None), "test/bullet_train/d.png": ("test", "bullet_train", None)}, {}),
    "deep": ({"a/b/c/d/e.png": (ANY, "b/c/d", None), "a/f/c/d/g.png": (ANY, "f/c/d", None)}, {}),
    "hidden": ({"cat/0.png": (ANY, "cat", None)}, {".git/a.png": None, "cat/.ipynb_checkpoints/0-checkpoint.png": None,
        "__MACOSX/cat/._0.png": None, "cat/._0.png": None, "@eaDir/0.png/THUMB.png": None, "$RECYCLE.BIN/x.png": None,
        "#recycle/y.png": None, "lost+found/z.png": None, "Thumbs.db": None, "desktop.ini": None, ".DS_Store": None}),
    "linked classes": ({"cat/0.png": (ANY, "cat", None), "dog/0.png": (ANY, "dog", None)}, {
        ".real/d/0.png": None, "dog": "-> .real/d"}),
    "linked splits": ({"train/0.png": ("train", "", None), "test/0.png": ("test", "", None)}, {
        ".real/a/0.png": None, ".real/b/0.png": None, "train": "-> .real/a", "test": "-> .real/b"}),
    "a loop": ({"a/0.png": (ANY, "a", None)}, {"a/self": "-> a", "a/up": "-> .", "b": "-> b2", "b2": "-> b"}),
    "a folder in train and test": ({"test/0.png": ("test", "", None)}, {
        ".real/0.png": None, "train": "-> .real", "test": "-> .real"}),
    "files linked into splits": ({"train/a.png": ("train", "", None), "test/b.png": ("test", "", None)}, {
        "all/a.png": None, "all/b.png": None, "train/a.png": "-> all/a.png", "test/b.png": "-> all/b.png",
        "train/c.png": "-> all/b.png"}),
    "other suffixes": ({"a.jfif": (ANY, "", None), "b.jpe": (ANY, "", None), "c.mpo": (ANY, "", None),
        "d.tga": (ANY, "", None), "e.dib": (ANY, "", None), "f.JPG_large": (ANY, "", None), "g": (ANY, "", None),
        "h.php": (ANY, "", None), "p.HEIC": (ANY, "", None)}, {"p.HEIC": JPEG,
        "f.JPG_large": JPEG, "g": PNG, "h.php": b"GIF89a", "i": b"hello", "j.heic": HEIC,
        "k.jxl": None, "l.HEIC": None, "m.dat": HEIC, "n.nef": b"II*\0", "o.zip": None}),
    "metadata.csv": ({"a.png": (ANY, "", "one"), "b.png": ("test", "", "two, three")}, {
        "metadata.csv": 'file_name,text,split\na.png,one,\nb.png,"two, three",test\n'}),
    "metadata.csv below": ({"x/train/a.png": ("train", "x", "one"), "x/test/a.png": ("test", "x", "two")}, {
        "x/train/metadata.csv": "file_name,text\na.png,one\n", "x/test/metadata.jsonl":
        '{"file_name": "a.png", "text": "two"}\n'}),
    "metadata.tsv": ({"a.png": (ANY, "", "one")}, {"metadata.tsv": "Image\tPrompt\na.png\tone\n"}),
    "metadata.json, a list": ({"a.png": (ANY, "", "one")}, {"metadata.json": '[{"image": "a.png", "caption": "one"}]'}),
    "metadata.json by name": ({"a.png": (ANY, "", "one"), "b.png": ("test", "", None)}, {"metadata.json":
        '{"a.png": "one", "b": {"split": "test"}}'}),
    "metadata.json by column": ({"a.png": (ANY, "", "one"), "b.png": (ANY, "", None)}, {"metadata.json":
        '{"file_name": ["a.png", "b.png"], "text": ["one", null]}'}),
    "classes in a table": ({"a.png": ("train", "cat", None), "b.png": ("test", "dog", None)}, {
        "metadata.csv": "filename;label;subset\na.png;cat;train\nb.png;dog;test\n"}),
    "DALL-E's captions": ({"a.png": (ANY, "", "one"), "b.jpg": (ANY, "", None)}, {"a.txt": "one\n\ntwo\n", "c.txt": "x",
        "b.txt": "0 0.5 0.5 0.1 0.1\n1 0.2 0.2 0.1 0.1"}),
}  # fmt: skip
