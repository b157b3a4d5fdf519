"""Small films with sentences, drawn by hand: moving squares, their true masks, and sources made of them."""

from dataclasses import dataclass

import numpy as np

from dynin.data.referring.example import ReferringExample

HEIGHT, WIDTH, FRAMES = 40, 56, 5


def square(top, left, side=8, height=HEIGHT, width=WIDTH):
    """A square that may lie partly outside the frame."""
    mask = np.zeros((height, width), dtype=bool)
    mask[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = True
    return mask


def track(start, step, frames=FRAMES):
    """A square that moves by as many pixels each frame."""
    return [square(start[0] + t * step[0], start[1] + t * step[1]) for t in range(frames)]


def nothing(frames=FRAMES):
    return [np.zeros((HEIGHT, WIDTH), dtype=bool)] * frames


def film(video="v", sentence_id="0", masks=None, foreground=None, **more):
    """One sentence about a film whose frame t is grey of value t."""
    masks = track((4, 4), (0, 3)) if masks is None else masks
    values = {
        "video": video,
        "sentence_id": sentence_id,
        "sentence": f"sentence {sentence_id} about {video}",
        "family": "static",
        "frame_names": tuple(f"{t:05d}" for t in range(len(masks))),
        "height": masks[0].shape[0],
        "width": masks[0].shape[1],
        "read_frame": lambda t: np.full((*masks[0].shape, 3), t, dtype=np.uint8),
        "read_mask": lambda t: masks[t],
        "read_foreground": None if foreground is None else (lambda t: foreground[t]),
    }
    return ReferringExample(**{**values, **more})


@dataclass
class Source:
    """Videos as lists of sentences."""

    videos: list

    def __len__(self):
        return len(self.videos)

    def examples(self, index):
        return self.videos[index]


def small_source():
    """Three videos: two things each, a sentence that means nothing in the last."""
    return Source(
        [
            [
                film(f"v{number}", "0", track((4, 4 + number), (0, 3)), family="static"),
                film(f"v{number}", "1", track((24, 30), (-1, -2)), family="motion"),
            ]
            + ([film("v2", "2", nothing(), family="none")] if number == 2 else [])
            for number in range(3)
        ]
    )
