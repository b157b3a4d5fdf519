"""Faults of annotated folders: each is told with the file, the video and the sentence, and nothing is guessed."""

import json

import numpy as np
import pytest
import referring_folders as folders
from referring_folders import HEIGHT, TRACK, WIDTH, box, rle

from dynin.data.referring import outlines
from dynin.data.referring.catalogue import open_dataset
from dynin.data.referring.instruct import open_instructions
from dynin.data.referring.source import walk
from dynin.errors import DataError


def _edit(path, change):
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def _read_all(source):
    for example in walk(source):
        for index in range(len(example)):
            example.read_frame(index)
            if example.read_mask is not None:
                example.read_mask(index)


def _told(name, root, split=None):
    with pytest.raises(DataError) as caught:
        _read_all(open_dataset(name, root, split))
    return str(caught.value)


@pytest.fixture
def mevis(tmp_path):
    return folders.write_mevis(tmp_path) / "mevis" / "valid_u"


def _first_video(value):
    return value["videos"]["v0"]


def test_a_missing_frame(mevis):
    (mevis / "JPEGImages" / "v1" / "00001.jpg").unlink()
    told = _told("mevis", mevis.parent)
    assert "video 'v1': frame '00001' of the annotation is missing" in told
    assert "1 of 3" in told


def test_a_frame_that_is_not_listed(mevis):
    folders.write_picture(mevis / "JPEGImages" / "v0" / "00003.jpg")
    assert "v0/00003.jpg is not listed in the annotation" in _told("mevis", mevis.parent)


def test_a_missing_folder_of_frames(mevis):
    (mevis / "JPEGImages" / "v0").rename(mevis / "JPEGImages" / "elsewhere")
    assert "video 'v0': no folder" in _told("mevis", mevis.parent)


def test_frames_out_of_order(mevis):
    _edit(mevis / "meta_expressions.json", lambda value: _first_video(value)["frames"].reverse())
    told = _told("mevis", mevis.parent)
    assert "meta_expressions.json, video 'v0': its frames are not in time order" in told
    assert "'00002'" in told


def test_numbers_in_names_are_compared_as_numbers(mevis):
    def renumber(value):
        for video in value["videos"].values():
            video["frames"] = ["f9", "f10", "f11"]

    for name in ("v0", "v1"):
        for old, new in zip(folders.FRAMES, ("f9", "f10", "f11"), strict=True):
            (mevis / "JPEGImages" / name / f"{old}.jpg").rename(mevis / "JPEGImages" / name / f"{new}.jpg")
    _edit(mevis / "meta_expressions.json", renumber)
    _read_all(open_dataset("mevis", mevis.parent))


def test_a_frame_listed_twice(mevis):
    _edit(mevis / "meta_expressions.json", lambda value: _first_video(value)["frames"].insert(0, "00000"))
    assert "video 'v0': frame '00000' is listed twice" in _told("mevis", mevis.parent)


def test_a_frame_of_another_size(mevis):
    folders.write_picture(mevis / "JPEGImages" / "v0" / "00002.jpg", size=(HEIGHT, WIDTH + 8))
    told = _told("mevis", mevis.parent)
    assert f"00002.jpg is {WIDTH + 8} x {HEIGHT} px, expected {WIDTH} x {HEIGHT}; nothing is resized" in told


def test_a_damaged_frame(mevis):
    path = mevis / "JPEGImages" / "v0" / "00001.jpg"
    path.write_bytes(path.read_bytes()[:300])
    told = _told("mevis", mevis.parent)
    assert "video 'v0'" in told
    assert "00001.jpg" in told


def test_a_mask_of_another_size(mevis):
    wrong = rle(box(2, 2, size=(HEIGHT, WIDTH * 2)))
    _edit(mevis / "mask_dict.json", lambda value: value["9"].__setitem__(1, wrong))
    told = _told("mevis", mevis.parent)
    assert "mask_dict.json, video 'v0', sentence '1', annotation '9', frame '00001'" in told
    assert f"size [{HEIGHT}, {WIDTH * 2}]" in told


def test_masks_that_cannot_be_read(mevis):
    for wrong in ({"size": [HEIGHT, WIDTH], "counts": "~~~~~~~~"}, {"size": [HEIGHT, WIDTH]}, "x"):
        _edit(mevis / "mask_dict.json", lambda value, wrong=wrong: value["7"].__setitem__(0, wrong))
        assert "sentence '0', annotation '7', frame '00000'" in _told("mevis", mevis.parent)


def test_fewer_masks_than_frames(mevis):
    _edit(mevis / "mask_dict.json", lambda value: value["9"].pop())
    told = _told("mevis", mevis.parent)
    assert "annotation '9': 2 masks, but video 'v0', sentence '1' has 3 frames; nothing is resampled" in told


def test_an_unknown_annotation(mevis):
    _edit(mevis / "mask_dict.json", lambda value: value.pop("9"))
    assert "no annotation '9', which video 'v0', sentence '1' names" in _told("mevis", mevis.parent)


def test_an_empty_sentence(mevis):
    _edit(mevis / "meta_expressions.json", lambda v: _first_video(v)["expressions"]["1"].update(exp=" "))
    assert "video 'v0', sentence '1', exp: is ' ', expected a sentence" in _told("mevis", mevis.parent)


def test_a_sentence_without_annotations(mevis):
    _edit(mevis / "meta_expressions.json", lambda v: _first_video(v)["expressions"]["1"].pop("anno_id"))
    assert "video 'v0', sentence '1': has no 'anno_id'" in _told("mevis", mevis.parent)


def test_a_file_that_is_no_json_or_not_there(mevis):
    path = mevis / "meta_expressions.json"
    path.write_text(path.read_text()[:-5])
    assert "meta_expressions.json: no JSON" in _told("mevis", mevis.parent)
    path.write_text("[]")
    assert "is list, expected an object" in _told("mevis", mevis.parent)
    path.unlink()
    assert "meta_expressions.json: cannot be read (No such file" in _told("mevis", mevis.parent)


def test_revos_tells_sizes_types_and_foregrounds_that_are_wrong(tmp_path):
    folder = folders.write_revos(tmp_path) / "ReVOS"
    source = open_dataset("revos", folder)
    _edit(folder / "mask_dict_foreground.json", lambda value: value["TAO/clip"]["masks_rle"].pop())
    with pytest.raises(DataError, match="video 'TAO/clip': 2 masks for 3 frames"):
        source.examples(0)[0].read_foreground(0)
    path = folder / "meta_expressions_valid_.json"
    _edit(path, lambda value: value["videos"]["TAO/clip"].update(height=HEIGHT + 1))
    assert f"the annotation says {WIDTH} x {HEIGHT + 1}" in _told("revos", folder)
    _edit(path, lambda value: value["videos"]["TAO/clip"]["expressions"]["1"].update(type_id=5))
    assert "sentence '1': type_id is 5, expected one of 0, 1, 2" in _told("revos", folder)


def test_numbered_sentences_need_as_many_annotations(tmp_path):
    folder = folders.write_ref_davis17(tmp_path) / "davis17"
    folders.write_pickle(folder / "valid" / "mask_dict.pkl", folders.table(**{"0": TRACK}))
    assert "1 annotations for 2 sentences" in _told("ref-davis17", folder)


def test_faults_of_the_refcoco_family(tmp_path):
    root = folders.write_refer(tmp_path) / "refer_seg"
    assert "no sentences of split 'testB'" in _told("refcoco", root, "testB")
    _edit(root / "refcoco" / "instances.json", lambda value: value["annotations"].pop(1))
    told = _told("refcoco", root)
    assert "ref 2: annotation 71 is not in" in told
    folders.write_refer(tmp_path)
    _edit(root / "refcoco" / "instances.json", lambda value: value["images"].pop(0))
    assert "picture 7: is unknown" in _told("refcoco", root)
    folders.write_refer(tmp_path)
    _edit(root / "refcoco" / "instances.json", lambda value: value["annotations"][1].update(segmentation=[[1, 2, 3]]))
    assert "picture 7, sentence '5', annotation 71: a polygon is '[1, 2, 3]'" in _told("refcoco", root)
    folders.write_refer(tmp_path)
    (root / "images/mscoco/images/train2014/COCO_train2014_000000000007.jpg").unlink()
    told = _told("refcoco", root)
    assert "picture '7'" in told
    assert "no such file" in told


def test_faults_of_reason_seg(tmp_path):
    root = folders.write_reason_seg(tmp_path)
    path = root / "reason_seg" / "train" / "b.json"
    _edit_cp1252(path, lambda value: value["shapes"][0].update(points=[[1, 2], [3, 4]]))
    assert "b.json, shape 0: a polygon is" in _told("reason-seg", root, "train")
    path.unlink()
    assert "has no b.json beside it" in _told("reason-seg", root, "train")


def _edit_cp1252(path, change):
    value = json.loads(path.read_text(encoding="cp1252"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_faults_of_label_maps(tmp_path):
    root = folders.write_ade20k(tmp_path)
    labels = np.full((HEIGHT, WIDTH), 9)
    path = root / "ade20k" / "annotations" / "validation" / "ADE_val_1.png"
    folders.write_labels(path, labels)
    assert "ADE_val_1.png: label 9 has no class" in _told("ade20k", root)
    folders.write_labels(path, labels[:, :-1])
    assert f"is {WIDTH - 1} x {HEIGHT} px, expected {WIDTH} x {HEIGHT}" in _told("ade20k", root)
    path.unlink()
    told = _told("ade20k", root)
    assert "'ADE_val_1' lies in" in told
    assert "but not in" in told
    (root / "ade20k" / "objectInfo150.txt").write_text("Idx\tName\nx\n")
    folders.write_labels(path, labels)
    assert "objectInfo150.txt, line 2" in _told("ade20k", root)


def test_faults_of_parts(tmp_path):
    root = folders.write_pascal_part(tmp_path)
    path = root / "vlpart" / "pascal_part" / "val.json"
    _edit(path, lambda value: value["annotations"][0].update(category_id=9))
    assert "annotation 1: class 9 is unknown" in _told("pascal-part", root)
    _edit(path, lambda value: value["annotations"][0].update(category_id=1, image_id=8))
    assert "annotation 1: picture 8 is unknown" in _told("pascal-part", root)


def test_faults_of_conversations(tmp_path):
    root = folders.write_conversations(tmp_path)
    path = root / "0_30_s_academic_v0_1_cap_processed.json"
    _edit(path, lambda value: value[0]["conversations"].pop())
    with pytest.raises(DataError, match="entry 0: 3 turns, expected an answer to every question"):
        open_instructions("llava-video", root).conversation(0)
    _edit(path, lambda value: value[0]["conversations"].pop(0))
    with pytest.raises(DataError, match="turn 0: is from 'gpt'"):
        open_instructions("llava-video", root).conversation(0)
    _edit(path, lambda value: value[0].update(video="academic/3.mp4"))
    (root / "academic" / "3").mkdir()
    with pytest.raises(DataError, match=r"no frames in .*academic/3; extract"):
        open_instructions("llava-video", root).conversation(0)
    with pytest.raises(DataError, match="did you mean 'llava-video'"):
        open_instructions("llava-vido", root)


def test_names_that_nobody_knows(tmp_path):
    with pytest.raises(DataError, match="unknown dataset 'mevi'; did you mean 'mevis'"):
        open_dataset("mevi", tmp_path)
    with pytest.raises(DataError, match="dataset mevis has no split 'test'; choose one of valid_u, train, valid"):
        open_dataset("mevis", tmp_path, "test")
    with pytest.raises(DataError, match="no such folder; give the folder of mevis"):
        open_dataset("mevis", tmp_path / "nowhere")


def test_masks_need_a_package_that_the_error_names(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(outlines, "import_quietly", missing)
    with pytest.raises(DataError, match=r'pip install "dynin\[segmentation\]"'):
        outlines.from_rle(rle(box(0, 0)), (HEIGHT, WIDTH), "here")


def test_indices_outside_a_source(mevis, tmp_path):
    for source in (open_dataset("mevis", mevis.parent), open_dataset("paco", folders.write_paco(tmp_path))):
        with pytest.raises(IndexError, match=f"of {len(source)}; indices start with 0"):
            source.examples(len(source))
