"""Malformed files by mutation of whole ones, the same for sound and pictures."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

Mutation = Callable[[bytearray, random.Random], bytes]


def _truncate(content: bytearray, rng: random.Random) -> bytes:
    """Keep the beginning: sometimes only some bytes, sometimes nearly all."""
    share = rng.choice([0.002, 0.01, 0.05, 0.3, 0.6, 0.9, 0.99])
    return bytes(content[: max(1, int(len(content) * share * rng.uniform(0.5, 1.0)))])


def _behead(content: bytearray, rng: random.Random) -> bytes:
    """Lose the beginning."""
    return bytes(content[rng.randint(1, max(1, min(len(content) - 1, 4096))) :])


def _flip_bits(content: bytearray, rng: random.Random) -> bytes:
    """Flip single bits anywhere."""
    for _ in range(rng.choice([1, 8, 64, 512])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def _spoil_header(content: bytearray, rng: random.Random) -> bytes:
    """Random bytes in the first 64, the magic number kept or not."""
    start = rng.choice([0, 4, 8, 12])
    for i in rng.sample(
        range(start, min(64, len(content))), k=min(rng.choice([1, 4, 16]), min(64, len(content)) - start)
    ):
        content[i] = rng.randrange(256)
    return bytes(content)


def _huge_number(content: bytearray, rng: random.Random) -> bytes:
    """Four bytes of the header say "enormous", "negative" or "nothing"."""
    at = rng.randrange(4, max(5, min(200, len(content) - 4)))
    content[at : at + 4] = rng.choice(
        [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x00\x00\x00\x00"]
    )
    return bytes(content)


def _zero_run(content: bytearray, rng: random.Random) -> bytes:
    """A hole of zeros."""
    length = max(1, int(len(content) * rng.choice([0.01, 0.1, 0.5])))
    at = rng.randrange(len(content))
    content[at : at + length] = bytes(len(content[at : at + length]))
    return bytes(content)


def _swap_blocks(content: bytearray, rng: random.Random) -> bytes:
    """Two blocks change places."""
    size = max(1, min(len(content) // 4, rng.choice([16, 256, 4096])))
    a, b = rng.randrange(len(content) - size), rng.randrange(len(content) - size)
    content[a : a + size], content[b : b + size] = content[b : b + size], content[a : a + size]
    return bytes(content)


def _repeat_block(content: bytearray, rng: random.Random) -> bytes:
    """A block occurs twice."""
    size = max(1, min(len(content) // 3, rng.choice([8, 512, 8192])))
    at = rng.randrange(len(content) - size)
    return bytes(content[: at + size] + content[at:])


def _cut_out(content: bytearray, rng: random.Random) -> bytes:
    """A piece in the middle is missing."""
    size = max(1, int(len(content) * rng.choice([0.001, 0.05, 0.4])))
    at = rng.randrange(max(1, len(content) - size))
    return bytes(content[:at] + content[at + size :])


def _append_garbage(content: bytearray, rng: random.Random) -> bytes:
    """Random bytes after the end."""
    return bytes(content) + rng.randbytes(rng.choice([1, 100, 5000]))


def _noise_after_header(content: bytearray, rng: random.Random) -> bytes:
    """A whole header, then nothing but random bytes."""
    kept = min(len(content), rng.choice([16, 44, 128, 512]))
    return bytes(content[:kept]) + rng.randbytes(len(content) - kept)


def _as_text(content: bytearray, rng: random.Random) -> bytes:
    """What a transfer in text mode does: line feeds become carriage return and line feed."""
    return bytes(content).replace(b"\n", b"\r\n").replace(b"\x1a", b"")


MUTATIONS: dict[str, Mutation] = {
    function.__name__.strip("_"): function
    for function in (
        _truncate,
        _behead,
        _flip_bits,
        _spoil_header,
        _huge_number,
        _zero_run,
        _swap_blocks,
        _repeat_block,
        _cut_out,
        _append_garbage,
        _noise_after_header,
        _as_text,
    )
}


def mutations(content: bytes, seed: int, n: int) -> Iterator[tuple[str, bytes]]:
    """Yield ``n`` damaged copies of ``content`` as (name, bytes); the same seed gives the same ones.

    All kinds of damage take turns; every second round hurts a copy that is already damaged.
    """
    rng = random.Random(seed)
    names = list(MUTATIONS)
    for i in range(n):
        name = names[i % len(names)]
        damaged = MUTATIONS[name](bytearray(content), rng)
        if (i // len(names)) % 2 and len(damaged) > 64:
            second = rng.choice(names)
            name, damaged = f"{name}+{second}", MUTATIONS[second](bytearray(damaged), rng)
        yield f"{i:03d}-{name}", damaged


def not_media() -> dict[str, bytes]:
    """Files that never were a sound or picture, whatever their name says."""
    rng = random.Random(0)
    return {
        "one-byte": b"\x00",
        "zeros": bytes(4096),
        "ones": b"\xff" * 4096,
        "text": b"This is not what its name says.\n" * 40,
        "utf-8": "Grüße, 你好, здравствуйте\n".encode() * 40,
        "noise": rng.randbytes(8192),
        "zip": b"PK\x03\x04" + rng.randbytes(500),
        "pdf": b"%PDF-1.7\n" + rng.randbytes(500),
        "elf": b"\x7fELF\x02\x01\x01" + rng.randbytes(500),
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    }
