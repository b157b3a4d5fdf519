"""What a media file is, read from its own bytes before any decoder sees it.

Enters: bytes or a seekable stream. Leaves: the format by content (suffixes are not trusted), the size of a picture, the
frame durations of an animation, and whether the container is complete. Decoders are lenient where it matters here:
they return half a WAV, OGG, MP3, GIF or MP4 without a word.
Does not know pixels, samples or limits.
"""

import io
import struct

PICTURES = ("PNG", "JPEG", "WebP", "GIF")
SOUNDS = ("WAV", "FLAC", "MP3", "OGG")
VIDEOS = ("MP4", "GIF", "WebP")
HEAD_BYTES = 64

_UNKNOWN_LENGTH = (0, 0xFFFFFFFF)
_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE_MARKERS = frozenset(range(0xD0, 0xDA)) | {0x01}


def sniff(head: bytes) -> str | None:
    """The format told by the first bytes of a file, one of the names above, or None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"RIFF", b"RF64")):
        return {b"WEBP": "WebP", b"WAVE": "WAV"}.get(head[8:12])
    if head.startswith(b"fLaC"):
        return "FLAC"
    if head.startswith(b"OggS"):
        return "OGG"
    if head[4:8] == b"ftyp":
        return "MP4"
    is_mpeg_frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 != 0
    return "MP3" if head.startswith(b"ID3") or is_mpeg_frame else None


def picture_size(data: bytes, kind: str) -> tuple[int, int]:
    """Width and height in pixels that a picture's header declares.

    Raises:
        ValueError, struct.error, IndexError: If the header is damaged (call inside `files.decoding_untrusted`).
    """
    if kind == "PNG":
        if data[12:16] != b"IHDR":
            raise ValueError("no IHDR chunk")
        return struct.unpack(">II", data[16:24])
    if kind == "GIF":
        return struct.unpack("<HH", data[6:10])
    return _webp_size(data) if kind == "WebP" else _jpeg_size(data)


def _webp_size(data: bytes) -> tuple[int, int]:
    form = data[12:16]
    if form == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if form == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if form != b"VP8 ":
        raise ValueError("no VP8 chunk")
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError("no marker where one must be")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_BARE_MARKERS:
            at += 2
        elif marker in _JPEG_SIZE_MARKERS:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def animation_durations_ms(data: bytes, kind: str, max_pictures: int) -> list[int]:
    """How long each picture of a GIF or WebP is shown, in milliseconds; [0] for a WebP that does not move.

    Stops counting one beyond `max_pictures`, so that a file of a million pictures costs no more than one over it.

    Raises:
        ValueError, IndexError: If the file ends before its last picture does (call inside `files.decoding_untrusted`).
    """
    return (_gif_durations_ms if kind == "GIF" else _webp_durations_ms)(data, max_pictures)


def _gif_durations_ms(data: bytes, max_pictures: int) -> list[int]:
    at = 13 + _colour_table_bytes(data[10])
    durations: list[int] = []
    pending_ms = 0
    while len(durations) <= max_pictures and data[at] != 0x3B:  # the trailer; IndexError where a file is cut short
        if data[at] == 0x21:  # extension: label, then sub-blocks
            if data[at + 1] == 0xF9:
                pending_ms = 10 * int.from_bytes(data[at + 4 : at + 6], "little")
            at = _after_sub_blocks(data, at + 2)
        elif data[at] == 0x2C:  # picture: descriptor, colours, code size, then sub-blocks
            durations.append(pending_ms)
            pending_ms = 0
            at = _after_sub_blocks(data, at + 11 + _colour_table_bytes(data[at + 9]))
        else:
            raise ValueError("unknown GIF block")
    if not durations:
        raise ValueError("no picture")
    return durations


def _colour_table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_sub_blocks(data: bytes, at: int) -> int:
    while data[at] != 0:
        at += 1 + data[at]
    return at + 1


def _webp_durations_ms(data: bytes, max_pictures: int) -> list[int]:
    stop = 8 + int.from_bytes(data[4:8], "little")
    if stop > len(data):
        raise ValueError("shorter than declared")
    durations: list[int] = []
    at = 12
    while len(durations) <= max_pictures and at + 8 <= stop:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"ANMF":
            durations.append(int.from_bytes(data[at + 20 : at + 23], "little"))
        at += 8 + size + size % 2
    return durations or [0]


def is_complete(stream: io.BufferedIOBase, kind: str) -> bool:
    """False where a WAV, OGG, MP3 or MP4 declares more bytes than it has. Leaves the stream at its start.

    True for the other formats, whose decoders report the loss themselves, and where the length is not declared.
    """
    length = stream.seek(0, 2)
    stream.seek(0)
    check = {"WAV": _is_wav_complete, "OGG": _is_ogg_complete, "MP3": _is_mp3_complete, "MP4": _is_mp4_complete}
    complete = check[kind](stream, length) if kind in check else True
    stream.seek(0)
    return complete


def _is_wav_complete(stream: io.BufferedIOBase, length: int) -> bool:
    at = 12
    while at + 8 <= length:
        stream.seek(at)
        name, size = struct.unpack("<4sI", stream.read(8))
        if name == b"data":
            return size in _UNKNOWN_LENGTH or at + 8 + size <= length
        at += 8 + size + size % 2
    return False


def _is_ogg_complete(stream: io.BufferedIOBase, length: int) -> bool:
    """Walk the pages: the last one must be whole and carry the end-of-stream flag."""
    at, is_last = 0, False
    while at < length:
        stream.seek(at)
        head = stream.read(27)
        if len(head) < 27 or head[:4] != b"OggS":
            return is_last  # bytes after the end are harmless
        is_last = bool(head[5] & 4)
        at += 27 + head[26] + sum(stream.read(head[26]))
    return is_last and at == length


def _is_mp3_complete(stream: io.BufferedIOBase, length: int) -> bool:
    """Compare the byte count of a Xing or Info header, where there is one, with what follows it, within 1%."""
    head = stream.read(10)
    start = 0
    if head.startswith(b"ID3"):
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    stream.seek(start)
    frame = stream.read(64)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or len(frame) < at + 16:
        return length - start > len(frame)
    flags = int.from_bytes(frame[at + 4 : at + 8], "big")
    if not flags & 2:
        return True
    field = at + 8 + 4 * (flags & 1)
    declared = int.from_bytes(frame[field : field + 4], "big")
    return length - start >= 0.99 * declared


def _is_mp4_complete(stream: io.BufferedIOBase, length: int) -> bool:
    at = 0
    while at < length:
        stream.seek(at)
        head = stream.read(16)
        if len(head) < 8:
            return False
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        elif size == 0:  # the last box reaches to the end
            return True
        if size < 8:
            return False
        at += size
    return at == length
