"""One's own data: rows in one schema -> checked -> codes in a cache -> examples by step.

Enters: rows in files, tars or tables. Leaves: `Example` values and training rows. Does not know how a network is
trained.

    jsonl, tars, huggingface   rows with the place they came from            (reader.py)
    schema, template, draft    a row's parts and the task they mean
    medium, encoder            files to values, values to codes, codes to a row's length
    check                      every fault with its line and field
    part, cache, pretokenize   codes made once, in parts that survive a kill; over_ray: by several workers
    order, sources, blend      which examples a training step sees
    demo_rows                  Emoji World written in the schema
"""
