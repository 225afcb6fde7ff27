"""Damage ext3 images at random, repair them, and let the real e2fsck judge the results.

    python -m tools.fuzz_fsck [--count N] [--seed N] [--first N] [--keep DIRECTORY] [--stop] [IMAGE...]

Of every mutant our check repairs all in memory. Then e2fsck -fn has to find nothing in the result, our own check has to find
nothing, and every file that e2fsck -fy keeps as it was before has to be there with its type, size and content. Looking
only must not change a byte. An exception that is no answer, a read or write outside of the image, more than ten seconds of
the processor or more than 256 MiB of memory is a fault, too. Without images, those of tools/sound_images.py and
tools/ext3_mutants.py are used. Faults are counted, and their mutants kept; the exit code is 1 if there are any. Needs
e2fsprogs.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import ext3
from ext3.constants import MIN_BLOCK_SIZE, SUPERBLOCK_OFFSET
from ext3.errors import CorruptError, NotExt3Error, UnsupportedError
from ext3.format.schema import INODE_CORE, SUPERBLOCK
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions
from ext3.fsck.finding import Report
from ext3.fsck.policy import Ask, CheckOnly, Policy, Preen, Yes

from .ext3_mutants import Sample, mutate, sample_of, samples
from .fuzz_ext3 import Watched
from .fuzzing import limit_memory, time_limit
from .judge_fsck import Fact, complaints, contents, e2fsck, missing
from .sound_images import BASES, base_image

__all__ = ["Fault", "damage", "main", "try_mutant"]

MEMORY_BYTES = 256 << 20
SECONDS = 10
MUCH = 0.1
"""Share of the mutants with changed fields that have very many of them."""
LOOKED = 0.2
"""Share of the mutants that are looked at only, too, and of those that are preened."""
STAMP = ext3.Stamp(1_700_000_000, b"u" * 16, b"h" * 16)


class Fault(Exception):
    """What a mutant shows to be wrong, in a few words."""


def damage(sample: Sample, chance: random.Random) -> bytes:
    """One mutant: fields changed, rarely very many; or whole blocks and inodes exchanged, cleared or filled with noise."""
    if chance.random() < 0.7:
        data = mutate(sample, chance)
        if chance.random() < MUCH and len(data) == len(sample.data):
            for _ in range(chance.randrange(5, 40)):
                data = mutate(replace(sample, data=data), chance).ljust(len(data), b"\0")
        return data
    changed = bytearray(sample.data)
    size = MIN_BLOCK_SIZE << int(SUPERBLOCK.view(changed, 1, SUPERBLOCK_OFFSET)[0]["s_log_block_size"])
    kinds = sorted(sample.spots)
    for _ in range(chance.choice([1, 1, 2, 4])):
        kind, offset, _what = chance.choice(sample.spots[chance.choice(kinds)])
        if kind == "inode":
            _change_part(changed, offset, chance.choice(sample.spots["inode"])[1], INODE_CORE.size, chance)
        elif kind != "superblock":
            _change_part(changed, offset // size * size, chance.choice(sample.numbers) * size, size, chance)
    return bytes(changed)


def _change_part(data: bytearray, start: int, other: int, size: int, chance: random.Random) -> None:
    """Change ``size`` bytes at ``start``: with those at ``other``, to zeros, to noise, or only from some byte on."""
    if other + size > len(data):
        return
    one, two = data[start : start + size], data[other : other + size]
    match chance.randrange(5):
        case 0:
            one = bytearray(size)
        case 1:
            one = two
        case 2:
            one, two = two, one
        case 3:
            one = bytearray(chance.randbytes(size))
        case _:
            part = chance.randrange(0, size, 4)
            one[part:] = bytes(size - part)
    data[other : other + size] = two
    data[start : start + size] = one


def run(data: bytes, policy: Policy) -> tuple[Report, bytes]:
    """Check an image in memory. Return the report and the image after that."""
    device = Watched(data)
    with time_limit(SECONDS):
        report = check(device, policy, options=CheckOptions(force=True), stamp=STAMP)
    return report, bytes(device.data)


def try_mutant(data: bytes, chance: random.Random, scratch: Path, originals: set[Fact]) -> str:
    """Repair one mutant, and judge the result. Return how it went. Raises Fault.

    ``originals``: the files of the sample. What e2fsck keeps in the form they had, has to be kept.
    """
    image = scratch / "image.img"
    image.write_bytes(data)
    their_code, _ = e2fsck(image, "-fy")
    theirs_sound = not complaints(*e2fsck(image, "-fn"))
    kept = {path: fact for path, fact in contents(image).items() if fact in originals}
    try:
        report, repaired = run(data, Yes())
    except (NotExt3Error, UnsupportedError, CorruptError) as error:
        if not their_code & 8 and theirs_sound:
            raise Fault(f"refused: {error}") from error
        return f"refused: {type(error).__name__}"
    if report.exit_code & 4:
        if theirs_sound and not their_code & 12:
            raise Fault(f"left: {report.gave_up or report.findings[-1]}")
        return "both leave faults"
    image.write_bytes(repaired)
    lines = complaints(*e2fsck(image, "-fn"))
    if lines:
        raise Fault(f"e2fsck still says: {lines[0]}")
    again, _ = run(repaired, CheckOnly())
    if again.findings or again.exit_code:
        raise Fault(f"own second run: {again.findings[0] if again.findings else again.gave_up}")
    if theirs_sound:
        lost = list(missing(kept, contents(image), {}))
        if lost:
            raise Fault(f"loses {len(lost)}: {lost[0]}")
    if chance.random() < LOOKED:
        with suppress(NotExt3Error, CorruptError):
            run(data, Ask(lambda finding: chance.random() < 0.6))
        looked, same = run(data, CheckOnly())
        if same != data:
            raise Fault("a look changes the image")
        excused = all(finding.problem.excused for finding in report.findings)
        if their_code and bool(looked.exit_code) != bool(report.exit_code) and not excused:
            raise Fault(f"looked {looked.exit_code}, repaired {report.exit_code}")
        try:
            preened, after = run(data, Preen())
        except (NotExt3Error, CorruptError):
            return "repaired; not preened"
        image.write_bytes(after)
        e2fsck(image, "-fy")
        lost = list(missing(kept, contents(image), {})) if theirs_sound else []
        if lost:
            raise Fault(f"preened ({preened.exit_code}), loses {len(lost)}: {lost[0]}")
    return "sound" if not report.exit_code else "repaired"


def all_samples(paths: Sequence[Path]) -> list[Sample]:
    """The images to be damaged."""
    if paths:
        return [sample_of(path.read_bytes()) for path in paths]
    return [*(sample_of(base_image(name)) for name in BASES), *samples()]


def facts_of(sample: Sample) -> set[Fact]:
    """What the files of a sample are."""
    with tempfile.NamedTemporaryFile(prefix="fuzz-fsck-") as file:
        file.write(sample.data)
        file.flush()
        return set(contents(Path(file.name)).values())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz_fsck", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--keep", type=Path, help="where the mutants of faults are kept (default: a new directory)")
    parser.add_argument("--stop", action="store_true", help="stop at the first fault, with its traceback")
    parser.add_argument("images", nargs="*", type=Path)
    options = parser.parse_args(arguments)
    made = all_samples(options.images)
    originals = [facts_of(sample) for sample in made]
    limit_memory(MEMORY_BYTES)
    outcomes: Counter[str] = Counter()
    faults: list[tuple[int, str]] = []
    began, slowest = time.monotonic(), (0.0, 0)
    with tempfile.TemporaryDirectory(prefix="fuzz-fsck-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        for number in range(options.first, options.first + options.count):
            if number % 16 == 0:
                gc.collect()
            chance = random.Random(f"{options.seed} {number}")
            mutant = damage(made[number % len(made)], chance)
            facts = originals[number % len(made)]
            start = time.process_time()
            try:
                outcomes[try_mutant(mutant, chance, Path(directory), facts)] += 1
            except Exception as error:  # noqa: BLE001 - the very thing that is looked for
                text = f"{error}"
                if not isinstance(error, Fault):
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    text = f"{type(error).__name__}: {error} ({where.name}:{where.lineno})"
                faults.append((number, text))
                keep = options.keep = options.keep or Path(tempfile.mkdtemp(prefix="fuzz-fsck-kept-"))
                keep.mkdir(parents=True, exist_ok=True)
                keep.joinpath(f"{options.seed}-{number}.img").write_bytes(mutant)
                print(f"{number} ({number % len(made)}): {text}", flush=True)
                if options.stop:
                    traceback.print_exception(error)
                    break
            slowest = max(slowest, (time.process_time() - start, number))
    done = sum(outcomes.values()) + len(faults)
    print(f"{done} mutants in {time.monotonic() - began:.0f} s, slowest {slowest[0]:.1f} s ({slowest[1]})")
    for outcome, times in outcomes.most_common():
        print(f"{times:8} {outcome}")
    print(f"{100 * (done - len(faults)) / max(1, done):.2f} % as they should be, {len(faults)} faults", end="")
    print(f", kept in {options.keep}" if options.keep else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
