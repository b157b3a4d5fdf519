"""Sentences about videos and pictures, with the masks of what they mean.

Enters: a folder of a published benchmark, or (seed, index). Leaves: `ReferringExample` values. Does not know networks
or scores.

    example    the one type: frames, a sentence, a mask for every frame
    source     the protocol: so many videos, and the sentences of each
    catalogue  datasets by name
"""
