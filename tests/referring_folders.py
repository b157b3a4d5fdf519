"""Miniature datasets written in published layouts: frames whose pixels tell their index, and masks drawn by hand."""

import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

HEIGHT, WIDTH = 24, 32


def box(top, left, height=6, width=8, size=(HEIGHT, WIDTH)):
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def rle(mask, as_bytes=False):
    made = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = made["counts"] if as_bytes else made["counts"].decode("ascii")
    return {"size": [int(side) for side in made["size"]], "counts": counts}


def plain_rle(mask):
    """Run lengths that are not compressed, as a list."""
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def write_json(path, value, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(value, ensure_ascii=False).encode(encoding))


def write_pickle(path, value, protocol=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol=protocol))


def write_picture(path, level=0, size=(HEIGHT, WIDTH)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, dtype=np.uint8)).save(path)


def write_labels(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(path)


def write_frames(folder, names, size=(HEIGHT, WIDTH)):
    """Frame t is grey of level 40 * t."""
    for index, name in enumerate(names):
        write_picture(folder / f"{name}.jpg", 40 * index, size)


FRAMES = ("00000", "00001", "00002")
TRACK = [box(2, 2), None, box(2, 10)]
OTHER = [box(12, 20), box(12, 18), None]


def masks_of(*tracks):
    """What several tracks show together, frame by frame."""
    empty = np.zeros((HEIGHT, WIDTH), dtype=bool)
    return [
        np.logical_or.reduce([empty if mask is None else mask for mask in shown]) for shown in zip(*tracks, strict=True)
    ]


def table(**tracks):
    return {key: [None if mask is None else rle(mask) for mask in track] for key, track in tracks.items()}


def write_mevis(root: Path, split="valid_u") -> Path:
    folder = root / "mevis" / split
    write_frames(folder / "JPEGImages" / "v1", FRAMES)
    write_frames(folder / "JPEGImages" / "v0", FRAMES)
    is_public = split != "valid"
    sentences = {
        "0": {"exp": "the one that turns", **({"obj_id": [0], "anno_id": [7]} if is_public else {})},
        "1": {"exp": "both", **({"obj_id": [0, 1], "anno_id": [7, 9]} if is_public else {})},
    }
    videos = {name: {"frames": list(FRAMES), "expressions": sentences} for name in ("v1", "v0")}
    write_json(folder / "meta_expressions.json", {"videos": videos})
    if is_public:
        write_json(folder / "mask_dict.json", table(**{"7": TRACK, "9": OTHER}))
    return root


def write_revos(root: Path) -> Path:
    folder = root / "ReVOS"
    write_frames(folder / "JPEGImages" / "TAO" / "clip", FRAMES)
    sentences = {
        "0": {"exp": "a car", "obj_id": [1], "anno_id": [3], "type_id": 0},
        "1": {"exp": "what could carry me home?", "obj_id": [1, 2], "anno_id": [3, 4], "type_id": 1},
        "2": {"exp": "a boat", "obj_id": [], "anno_id": [], "type_id": 2},
    }
    entry = {"frames": list(FRAMES), "height": HEIGHT, "width": WIDTH, "expressions": sentences}
    write_json(folder / "meta_expressions_valid_.json", {"videos": {"TAO/clip": entry}})
    write_json(folder / "mask_dict.json", table(**{"3": TRACK, "4": OTHER}))
    union = [rle(mask) for mask in masks_of(TRACK, OTHER)]
    shares = [0.1, 0.1, 0.1]
    write_json(folder / "mask_dict_foreground.json", {"TAO/clip": {"masks_rle": union, "foreground_ratio": shares}})
    return root


def write_lv_vis(root: Path) -> Path:
    folder = root / "lvvis" / "train"
    write_frames(folder / "JPEGImages" / "00001", FRAMES)
    sentences = {"0": {"exp": "piano_accordion", "obj_id": [1], "anno_id": [0]}}
    videos = {"00001": {"frames": list(FRAMES), "expressions": sentences}}
    write_json(folder / "meta_expressions.json", {"videos": videos})
    write_json(folder / "mask_dict.json", table(**{"0": TRACK}))
    return root


def write_ref_youtube_vos(root: Path) -> Path:
    """Ids are not written: sorted by video, then by sentence as a string, "b" has 0 to 2 and "c" 3."""
    folder = root / "refytvos"
    frames = {"b": ("00000", "00005", "00010"), "c": ("00000", "00005", "00010")}
    sentences = {
        "c": {"0": {"exp": "a duck", "obj_id": "1"}},
        "b": {
            "2": {"exp": "two", "obj_id": "1"},
            "0": {"exp": "zero", "obj_id": "1"},
            "10": {"exp": "ten", "obj_id": "2"},
        },
    }
    videos = {name: {"frames": list(frames[name]), "expressions": sentences[name]} for name in sentences}
    for name, names in frames.items():
        write_frames(folder / "train" / "JPEGImages" / name, names)
        write_frames(folder / "valid" / "JPEGImages" / name, names)
    expressions = folder / "meta_expressions"
    write_json(expressions / "train" / "meta_expressions.json", {"videos": videos})
    write_json(expressions / "valid" / "meta_expressions.json", {"videos": videos})
    write_json(expressions / "test" / "meta_expressions.json", {"videos": {"b": videos["b"]}})
    tracks = [TRACK, OTHER, [box(t, t) for t in range(3)], [box(0, 20 - t) for t in range(3)]]
    pickled = {str(i): [None if m is None else rle(m, as_bytes=True) for m in track] for i, track in enumerate(tracks)}
    write_pickle(folder / "train" / "mask_dict.pkl", pickled)
    meta = {"videos": {"b": {"objects": {"1": {"category": "duck"}}}}}
    write_json(folder / "train" / "meta.json", meta)
    return root


def write_ref_davis17(root: Path) -> Path:
    folder = root / "davis17"
    write_frames(folder / "valid" / "JPEGImages" / "blackswan", FRAMES)
    sentences = {"0": {"exp": "the swan", "obj_id": "1"}, "1": {"exp": "a black swan", "obj_id": "1"}}
    videos = {"blackswan": {"frames": list(FRAMES), "expressions": sentences}}
    write_json(folder / "meta_expressions" / "valid" / "meta_expressions.json", {"videos": videos})
    write_pickle(folder / "valid" / "mask_dict.pkl", table(**{"0": TRACK, "1": TRACK}), protocol=2)
    return root


POLYGON = [2.0, 2.0, 10.0, 2.0, 10.0, 8.0, 2.0, 8.0]


def write_refer(root: Path, name="refcoco", refs="refs(unc).p", protocol=2) -> Path:
    folder = root / "refer_seg"
    is_clef = name == "refclef"
    images = folder / "images" / ("saiapr_tc-12" if is_clef else "mscoco/images/train2014")
    write_picture(images / "COCO_train2014_000000000007.jpg", 80)
    write_picture(images / "COCO_train2014_000000000009.jpg", 120)
    segmentation = [plain_rle(box(12, 20))] if is_clef else plain_rle(box(12, 20))
    annotations = [
        {"id": 70, "image_id": 7, "category_id": 1, "segmentation": [POLYGON]},
        {"id": 71, "image_id": 7, "category_id": 1, "segmentation": segmentation},
        {"id": 90, "image_id": 9, "category_id": 1, "segmentation": [POLYGON]},
    ]
    pictures = [
        {"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "height": HEIGHT, "width": WIDTH} for i in (7, 9)
    ]
    write_json(folder / name / "instances.json", {"images": pictures, "annotations": annotations, "categories": []})
    several = name == "grefcoco"
    entries = [
        _ref(2, 7, [70, 71] if several else 71, "val", {"5": "woman on the right", "6": "right"}),
        _ref(1, 7, [70] if several else 70, "val", {"4": "left man"}),
        _ref(3, 9, [90] if several else 90, "testA", {"8": "dog"}),
    ]
    if several:
        entries.append(_ref(4, 9, [-1], "val", {"9": "a unicorn"}))
    write = write_json if refs.endswith(".json") else lambda path, value: write_pickle(path, value, protocol)
    write(folder / name / refs, entries)
    return root


def _ref(ref_id, image_id, ann_id, split, sentences):
    said = [
        {"sent_id": int(key), "sent": text, "raw": text.title(), "tokens": text.split()}
        for key, text in sentences.items()
    ]
    values = {"ref_id": ref_id, "image_id": image_id, "ann_id": ann_id, "category_id": 1, "split": split}
    return {**values, "file_name": f"COCO_train2014_{image_id:012d}_{ref_id}.jpg", "sentences": said, "sent_ids": []}


def write_reason_seg(root: Path) -> Path:
    folder = root / "reason_seg"
    for split in ("val", "train"):
        write_picture(folder / split / "b.jpg", 60)
        shapes = [
            _shape("target", [[2, 2], [20, 2], [20, 16], [2, 16]]),
            _shape("ignore area", [[6, 6], [9, 6], [9, 9], [6, 9]]),
            _shape("flag", [[0, 0], [31, 0], [31, 23]]),
        ]
        value = {"text": ["where would one sit in the caf\u00e9?", "a seat"], "is_sentence": True, "shapes": shapes}
        write_json(folder / split / "b.json", value, encoding="cp1252")
    items = [{"image": "b.jpg", "query": "where would one sit?", "outputs": "On the chair, since it is one."}]
    write_json(folder / "explanatory" / "train.json", items)
    return root


def _shape(label, points):
    return {"label": label, "points": points}


def write_ade20k(root: Path) -> Path:
    folder = root / "ade20k"
    write_picture(folder / "images" / "validation" / "ADE_val_1.jpg", 30)
    labels = np.zeros((HEIGHT, WIDTH))
    labels[:6], labels[10:, 10:] = 2, 1
    write_labels(folder / "annotations" / "validation" / "ADE_val_1.png", labels)
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName", "1\t0.1\t11\t3\t1\twall", "2\t0.1\t6\t1\t1\tbuilding, edifice"]
    (folder / "objectInfo150.txt").write_text("\n".join(lines))
    return root


def write_coco_stuff(root: Path) -> Path:
    write_picture(root / "coco" / "val2017" / "000000000001.jpg", 30)
    labels = np.full((HEIGHT, WIDTH), 255)
    labels[:6], labels[6:9], labels[12:] = 0, 1, 2
    write_labels(root / "cocostuff" / "val2017" / "000000000001.png", labels)
    (root / "cocostuff" / "labels.txt").write_text("0: unlabeled\n1: person\n2: wall-brick\n3: sky\n")
    return root


def _coco_parts(names):
    annotations = [
        {"id": 1, "image_id": 4, "category_id": 1, "segmentation": [POLYGON]},
        {"id": 2, "image_id": 4, "category_id": 2, "segmentation": [POLYGON]},
        {"id": 3, "image_id": 4, "category_id": 2, "segmentation": plain_rle(box(12, 20))},
    ]
    categories = [{"id": index, "name": name} for index, name in enumerate(names, start=1)]
    return {"annotations": annotations, "categories": categories}


def write_paco(root: Path) -> Path:
    write_picture(root / "coco" / "val2017" / "000000000004.jpg", 90)
    images = [{"id": 4, "file_name": "val2017/000000000004.jpg", "height": HEIGHT, "width": WIDTH}]
    value = {"images": images, **_coco_parts(["trash_can", "mouse_(computer_equipment):scroll_wheel"])}
    write_json(root / "vlpart" / "paco" / "annotations" / "paco_lvis_v1_val.json", value)
    return root


def write_pascal_part(root: Path) -> Path:
    folder = root / "vlpart" / "pascal_part"
    write_picture(folder / "VOCdevkit" / "VOC2010" / "JPEGImages" / "2008_000004.jpg", 90)
    images = [{"id": 4, "file_name": "2008_000004.jpg", "height": HEIGHT, "width": WIDTH}]
    value = {"images": images, **_coco_parts(["dog:tail", "dog:ear"])}
    write_json(folder / "val.json", value)
    return root


def write_conversations(root: Path) -> Path:
    turns = [
        {"from": "human", "value": "<video>\nWhat happens?"},
        {"from": "gpt", "value": "A dog runs."},
        {"from": "human", "value": "Where to?"},
        {"from": "gpt", "value": "To the left."},
    ]
    for path, video, folder in (
        (root / "train_json" / "videochatgpt_tune_.json", "v_1.mp4", root / "videochatgpt_tune" / "v_1"),
        (root / "0_30_s_academic_v0_1_cap_processed.json", "academic/2.mp4", root / "academic" / "2"),
    ):
        write_json(path, [{"id": "0", "video": video, "conversations": turns}])
        write_frames(folder, ("2", "10", "1"))
    return root
