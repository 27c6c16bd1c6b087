"""Outcomes of a row under way: what any interruption of their file leaves is whole, and counts each image once."""

import errno
import io
import zlib
from pathlib import Path

import numpy as np
import pytest

from shconv.errors import InputError
from shconv.experiments.partial import CHECKED, HEAD, MAGIC, Columns, Partial

INDEX = np.array([7, 3, 9, 0, 4, 8, 1])  # units of 3: (7, 3, 9), (0, 4, 8), (1)


def columns(unit: int) -> Columns:
    index = INDEX[3 * unit : 3 * unit + 3]
    return {"index": index, "correct": index % 2 == 0, "30/p_y": np.sqrt(index)}


def stored(folder: Path, units: tuple[int, ...], rank: int = 0, size: int = 3) -> Partial:
    partial = Partial(folder, INDEX, size)
    with partial.appending(rank) as append:
        for unit in units:
            append(unit, columns(unit), unit + 0.5)
    return partial


def test_what_was_appended_comes_back_in_the_order_of_the_index_with_all_its_seconds(tmp_path):
    stored(tmp_path, (2, 0), rank=1)
    partial = stored(tmp_path, (1,))
    joined, seconds = partial.joined()
    assert joined["index"].tolist() == INDEX.tolist()
    assert joined["correct"].tolist() == (INDEX % 2 == 0).tolist()
    assert joined["30/p_y"].tobytes() == np.sqrt(INDEX).tobytes()
    assert seconds == 4.5
    partial.remove()
    assert not tmp_path.exists()


def test_a_unit_that_two_files_hold_counts_once(tmp_path):
    stored(tmp_path, (0, 1, 2), rank=3)
    joined, seconds = stored(tmp_path, (1, 2)).joined()
    assert joined["index"].tolist() == INDEX.tolist()
    assert seconds == 4.5


def test_a_file_cut_anywhere_loses_the_torn_record_alone_and_goes_on(tmp_path):
    ends = [0]
    for unit in range(3):
        stored(tmp_path / "whole", (unit,))
        ends.append((tmp_path / "whole" / "0.part").stat().st_size)
    content = (tmp_path / "whole" / "0.part").read_bytes()
    (tmp_path / "cut").mkdir()
    for length in range(len(content)):
        (tmp_path / "cut" / "0.part").write_bytes(content[:length])
        partial = Partial(tmp_path / "cut", INDEX, 3)
        left = sum(length >= end for end in ends[1:])
        assert partial.done() == set(range(left))
        if length % 40 == 0:
            joined, _ = stored(tmp_path / "cut", tuple(range(left, 3))).joined()
            assert joined["index"].tolist() == INDEX.tolist()
            assert (tmp_path / "cut" / "0.part").read_bytes() == content


def test_a_changed_byte_is_noticed_wherever_it_is(tmp_path):
    stored(tmp_path, (0, 1))
    path = tmp_path / "0.part"
    content = path.read_bytes()
    first = len(content) // 2
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert Partial(tmp_path, INDEX, 3).done() == (set() if place < first else {0})


def test_units_that_are_missing_or_about_other_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="lacks 1 of 3 batches"):
        stored(tmp_path / "a", (0, 2)).joined()
    stored(tmp_path / "b", (0, 1, 2))
    with pytest.raises(InputError, match=r"0\.part is about other images"):
        Partial(tmp_path / "b", INDEX[::-1], 3).joined()
    with pytest.raises(InputError, match="about other images"):
        Partial(tmp_path / "b", INDEX[:6], 3).joined()


def test_no_images_need_no_file(tmp_path):
    partial = Partial(tmp_path / "none", INDEX[:0], 3)
    assert partial.done() == set()
    assert partial.joined() == ({}, 0.0)


def test_a_full_disk_keeps_what_was_stored_before(tmp_path):
    whole = stored(tmp_path, (0,)).done()
    path = tmp_path / "0.part"
    kept = path.rename(tmp_path / "kept")
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        stored(tmp_path, (1,), rank=0)
    assert caught.value.errno == errno.ENOSPC
    path.unlink()
    kept.rename(path)
    assert stored(tmp_path, (1,)).done() == whole | {1}


def test_a_file_with_a_pickle_in_it_is_not_opened(tmp_path):
    partial = stored(tmp_path, (0, 1, 2))
    body = io.BytesIO()
    np.save(body, np.array([{"index": 3}], dtype=object), allow_pickle=True)
    head = HEAD.pack(MAGIC, 0, body.tell(), 0, 1.0)
    checksum = zlib.crc32(body.getvalue(), zlib.crc32(head[CHECKED:]))
    (tmp_path / "1.part").write_bytes(HEAD.pack(MAGIC, checksum, body.tell(), 0, 1.0) + body.getvalue())
    assert partial.done() == {0, 1, 2}
    with pytest.raises(InputError, match=r"1\.part holds unknown content .*allow_pickle"):
        partial.joined()
