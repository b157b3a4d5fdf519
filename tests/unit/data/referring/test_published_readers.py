"""Every published layout, written in small, is read: sentences, families, frames and masks."""

import numpy as np
import pytest
import referring_folders as folders
from referring_folders import HEIGHT, OTHER, TRACK, WIDTH, box, masks_of

from dynin.data.referring.catalogue import open_dataset
from dynin.data.referring.instruct import open_instructions
from dynin.data.referring.parts import phrase
from dynin.data.referring.source import walk
from dynin.evaluation.segmentation.pair import score_pair

SQUARE = box(2, 2)  # what POLYGON covers


def _told(source):
    return [(example.video, example.sentence_id, example.sentence, example.family) for example in walk(source)]


def _masks(example):
    return [example.read_mask(index) for index in range(len(example))]


def _levels(example):
    """What the frames were painted with, back from JPEG."""
    frames = [example.read_frame(index) for index in range(len(example))]
    assert all(frame.shape == (example.height, example.width, 3) and frame.dtype == np.uint8 for frame in frames)
    return [round(float(frame.mean())) for frame in frames]


@pytest.mark.parametrize("is_beside_others", [True, False])
def test_mevis(tmp_path, is_beside_others):
    root = folders.write_mevis(tmp_path)
    source = open_dataset("mevis", root if is_beside_others else root / "mevis")
    assert _told(source) == [
        (video, sentence_id, words, "referring")
        for video in ("v0", "v1")
        for sentence_id, words in (("0", "the one that turns"), ("1", "both"))
    ]
    one, both = source.examples(1)
    assert _levels(one) == [0, 40, 80]
    assert one.frame_names == folders.FRAMES
    np.testing.assert_array_equal(_masks(one), masks_of(TRACK))
    np.testing.assert_array_equal(_masks(both), masks_of(TRACK, OTHER))


def test_mevis_of_the_server_has_no_masks(tmp_path):
    source = open_dataset("mevis", folders.write_mevis(tmp_path, "valid"), "valid")
    assert all(example.read_mask is None for example in walk(source))
    assert len(source) == 2


def test_revos_has_three_families_and_a_foreground(tmp_path):
    source = open_dataset("revos", folders.write_revos(tmp_path), "valid")
    assert _told(source) == [
        ("TAO/clip", "0", "a car", "referring"),
        ("TAO/clip", "1", "what could carry me home?", "reasoning"),
        ("TAO/clip", "2", "a boat", "none"),
    ]
    car, home, boat = source.examples(0)
    np.testing.assert_array_equal(_masks(home), masks_of(TRACK, OTHER))
    assert not np.any(_masks(boat))
    np.testing.assert_array_equal([car.read_foreground(index) for index in range(3)], masks_of(TRACK, OTHER))


def test_lv_vis_speaks_with_spaces(tmp_path):
    source = open_dataset("lv-vis", folders.write_lv_vis(tmp_path))
    assert _told(source) == [("00001", "0", "piano accordion", "category")]
    np.testing.assert_array_equal(_masks(source.examples(0)[0]), masks_of(TRACK))


def test_ref_youtube_vos_numbers_sentences_over_the_whole_file(tmp_path):
    root = folders.write_ref_youtube_vos(tmp_path)
    source = open_dataset("ref-youtube-vos", root, "train")
    zero, ten, two, duck = walk(source)
    assert [example.sentence for example in (zero, ten, two, duck)] == ["zero", "ten", "two", "a duck"]
    np.testing.assert_array_equal(_masks(zero), masks_of(TRACK))
    np.testing.assert_array_equal(_masks(ten), masks_of(OTHER))
    np.testing.assert_array_equal(_masks(two), [box(t, t) for t in range(3)])
    np.testing.assert_array_equal(_masks(duck), [box(0, 20 - t) for t in range(3)])
    assert zero.frame_names == ("00000", "00005", "00010")


def test_ref_youtube_vos_scores_what_its_test_does_not_list(tmp_path):
    source = open_dataset("ref-youtube-vos", folders.write_ref_youtube_vos(tmp_path))
    (duck,) = walk(source)
    assert (duck.video, duck.sentence, duck.read_mask) == ("c", "a duck", None)


def test_ref_davis17(tmp_path):
    source = open_dataset("ref-davis17", folders.write_ref_davis17(tmp_path))
    assert [told[:3] for told in _told(source)] == [("blackswan", "0", "the swan"), ("blackswan", "1", "a black swan")]
    np.testing.assert_array_equal(_masks(source.examples(0)[1]), masks_of(TRACK))


def test_maps_of_objects_where_there_are_no_run_lengths(tmp_path):
    root = folders.write_ref_davis17(tmp_path)
    valid = root / "davis17" / "valid"
    (valid / "mask_dict.pkl").unlink()
    for name, mask in zip(folders.FRAMES, masks_of(TRACK), strict=True):
        folders.write_labels(valid / "Annotations" / "blackswan" / f"{name}.png", mask * 1 + box(12, 20) * 2)
    (swan, _) = walk(open_dataset("ref-davis17", root))
    np.testing.assert_array_equal(_masks(swan), masks_of(TRACK))


@pytest.mark.parametrize(
    ("name", "refs", "protocol"),
    [
        ("refcoco", "refs(unc).p", 0),
        ("refcoco", "refs(unc).json", 0),
        ("refcoco+", "refs(unc).p", 2),
        ("refcocog", "refs(umd).p", 4),
        ("refclef", "refs(unc).p", 2),
    ],
)
def test_the_refcoco_family(tmp_path, name, refs, protocol):
    source = open_dataset(name, folders.write_refer(tmp_path, name, refs, protocol), "val")
    assert _told(source) == [
        ("7", "5", "woman on the right", "referring"),
        ("7", "6", "right", "referring"),
        ("7", "4", "left man", "referring"),
    ]
    woman, _, man = source.examples(0)
    assert _levels(woman) == [80]
    np.testing.assert_array_equal(_masks(woman), [box(12, 20)])
    np.testing.assert_array_equal(_masks(man), [SQUARE])


def test_grefcoco_means_several_things_or_none(tmp_path):
    root = folders.write_refer(tmp_path, "grefcoco", "grefs(unc).json")
    woman, _, man, unicorn = walk(open_dataset("grefcoco", root))
    np.testing.assert_array_equal(_masks(woman), [box(12, 20) | SQUARE])
    np.testing.assert_array_equal(_masks(man), [SQUARE])
    assert (unicorn.family, unicorn.video, np.any(_masks(unicorn))) == ("none", "9", False)


def test_reason_seg_has_void_and_scores_one_sentence(tmp_path):
    root = folders.write_reason_seg(tmp_path)
    (example,) = walk(open_dataset("reason-seg", root))
    assert (example.sentence, example.family) == ("where would one sit in the caf\u00e9?", "reasoning")
    target, void = example.read_mask(0), example.read_void(0)
    assert target[2:17, 2:21].sum() + void.sum() == 15 * 19
    assert void[6:10, 6:10].all()
    assert not (target & void).any()
    assert target.sum() + void.sum() == (target | void)[2:17, 2:21].sum()
    assert len(list(walk(open_dataset("reason-seg", root, "train")))) == 2


def test_void_pixels_are_left_out_of_scores(tmp_path):
    (example,) = walk(open_dataset("reason-seg", folders.write_reason_seg(tmp_path)))
    everything = example.read_mask(0) | example.read_void(0)
    score = score_pair(example, [everything])
    assert (score.region, score.union) == (1.0, example.read_mask(0).sum())
    assert score_pair(example, [everything | ~everything]).region < 1


def test_ade20k_and_its_void(tmp_path):
    wall, building = walk(open_dataset("ade20k", folders.write_ade20k(tmp_path)))
    assert (wall.sentence, building.sentence, wall.family) == ("wall", "building", "category")
    assert wall.read_mask(0).sum() == (HEIGHT - 10) * (WIDTH - 10)
    assert building.read_mask(0)[:6].all()
    assert wall.read_void(0).sum() == HEIGHT * WIDTH - wall.read_mask(0).sum() - building.read_mask(0).sum()


def test_coco_stuff_counts_from_nought_and_leaves_out_names_with_a_dash(tmp_path):
    person, sky = walk(open_dataset("coco-stuff", folders.write_coco_stuff(tmp_path)))
    assert (person.sentence, sky.sentence) == ("person", "sky")
    assert person.read_mask(0)[:6].all()
    assert sky.read_mask(0)[12:].all()
    assert person.read_void(0)[6:12].all()


def test_paco_tells_objects_and_parts(tmp_path):
    can, wheel = walk(open_dataset("paco", folders.write_paco(tmp_path)))
    assert (can.sentence, can.family) == ("trash can", "category")
    assert (wheel.sentence, wheel.family) == ("mouse scroll wheel", "part")
    np.testing.assert_array_equal(_masks(wheel), [SQUARE | box(12, 20)])


def test_pascal_part_tells_parts_in_two_ways(tmp_path):
    tail, ear = walk(open_dataset("pascal-part", folders.write_pascal_part(tmp_path)))
    assert (tail.sentence, ear.sentence) == ("the tail of the dog", "dog ear")
    assert _levels(tail) == [90]
    told = [phrase("dog:ear", number) for number in range(100)]
    assert told.count("dog ear") == told.count("the ear of the dog") == 50


@pytest.mark.parametrize(("name", "video"), [("video-llava-instruct", "v_1.mp4"), ("llava-video", "academic/2.mp4")])
def test_conversations_about_videos_have_frames_in_order(tmp_path, name, video):
    source = open_instructions(name, folders.write_conversations(tmp_path))
    conversation = source.conversation(0)
    assert (len(source), conversation.video) == (1, video)
    assert conversation.frame_names == ("1", "2", "10")
    assert [round(float(conversation.read_frame(index).mean())) for index in range(3)] == [80, 0, 40]
    assert conversation.pairs == (("What happens?", "A dog runs."), ("Where to?", "To the left."))


def test_explanations_of_reason_seg(tmp_path):
    source = open_instructions("reason-seg", folders.write_reason_seg(tmp_path) / "reason_seg")
    conversation = source.conversation(0)
    assert conversation.pairs == (("where would one sit?", "On the chair, since it is one."),)
    assert conversation.read_frame(0).shape == (HEIGHT, WIDTH, 3)
