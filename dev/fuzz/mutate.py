"""Makes broken input of good input: the mutations that general-purpose fuzzers begin with."""

import random
from collections.abc import Callable, Sequence

ODD = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
LONGEST = 131_072


def mutated(seeds: Sequence[bytes], words: Sequence[bytes], chance: random.Random) -> bytes:
    """Change one of the seeds in one to eight places."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 8)):
        chance.choice(MUTATIONS)(data, seeds, words, chance)
    return bytes(data[:LONGEST])


Mutation = Callable[[bytearray, Sequence[bytes], Sequence[bytes], random.Random], None]


def _flip(data: bytearray, _s: Sequence[bytes], _w: Sequence[bytes], chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _cut(data: bytearray, _s: Sequence[bytes], _w: Sequence[bytes], chance: random.Random) -> None:
    start = chance.randint(0, len(data))
    del data[start : start + chance.choice((1, 2, 4, 16, len(data)))]


def _repeat(
    data: bytearray, _s: Sequence[bytes], _w: Sequence[bytes], chance: random.Random
) -> None:
    start = chance.randint(0, len(data))
    data[start:start] = data[start : start + chance.choice((1, 4, 64))] * chance.choice((1, 8, 64))


def _odd_number(
    data: bytearray, _s: Sequence[bytes], _w: Sequence[bytes], chance: random.Random
) -> None:
    size, order = chance.choice((1, 2, 4)), chance.choice(("little", "big"))
    number = chance.choice(ODD) & ((1 << 8 * size) - 1)
    start = chance.randint(0, len(data))
    data[start : start + size] = number.to_bytes(size, order)  # type: ignore[arg-type]


def _splice(
    data: bytearray, seeds: Sequence[bytes], _w: Sequence[bytes], chance: random.Random
) -> None:
    other = chance.choice(seeds)
    start = chance.randint(0, len(other))
    data[chance.randint(0, len(data)) :] = other[start:]


def _word(
    data: bytearray, _s: Sequence[bytes], words: Sequence[bytes], chance: random.Random
) -> None:
    word = chance.choice(words) if words else chance.randbytes(4)
    start = chance.randint(0, len(data))
    data[start : start + chance.choice((0, 0, len(word)))] = word


MUTATIONS: tuple[Mutation, ...] = (_flip, _flip, _cut, _repeat, _odd_number, _splice, _word)
