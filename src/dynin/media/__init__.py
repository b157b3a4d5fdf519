"""Files and bytes to arrays with declared units, and back.

Enters: pictures (PNG, JPEG, WebP, GIF), sounds (WAV, FLAC, MP3, OGG) and videos (MP4, GIF, WebP) as files or bytes,
none of them trusted. Leaves: pixels in [-1, 1], mono samples at a stated rate, frames at a stated rate; files that
appear whole or not at all. Does not know codes, tokens, tasks or models.
"""
