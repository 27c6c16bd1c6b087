"""Outcomes of a row under way: what any interruption of a file leaves is noticed, and counts each image once."""

import errno
import io
from pathlib import Path

import numpy as np
import pytest

from shconv.errors import InputError
from shconv.experiments.partial import Columns, Partial, _checksum

INDEX = np.array([7, 3, 9, 0, 4, 8, 1])  # units of 3: (7, 3, 9), (0, 4, 8), (1)


def columns(unit: int) -> Columns:
    index = INDEX[3 * unit : 3 * unit + 3]
    return {"index": index, "correct": index % 2 == 0, "30/p_y": np.sqrt(index)}


def stored(folder: Path, *units: int) -> Partial:
    partial = Partial(folder, INDEX, 3)
    for unit in units:
        partial.add(unit, columns(unit), unit + 0.5)
    return partial


def test_what_was_stored_comes_back_in_the_order_of_the_index_with_all_its_seconds(tmp_path):
    partial = stored(tmp_path, 2, 0, 1)
    joined, seconds = partial.joined()
    assert joined["index"].tolist() == INDEX.tolist()
    assert joined["correct"].tolist() == (INDEX % 2 == 0).tolist()
    assert joined["30/p_y"].tobytes() == np.sqrt(INDEX).tobytes()
    assert joined.keys() == columns(0).keys()
    assert seconds == 4.5
    partial.remove()
    assert not tmp_path.exists()


def test_a_unit_that_is_stored_twice_counts_once(tmp_path):
    joined, seconds = stored(tmp_path, 0, 1, 2, 1).joined()
    assert joined["index"].tolist() == INDEX.tolist()
    assert seconds == 4.5


def test_a_file_cut_anywhere_is_no_unit_and_the_others_stay(tmp_path):
    partial = stored(tmp_path, 0, 1, 2)
    path = tmp_path / "1.part"
    content = path.read_bytes()
    for length in range(0, len(content), 5):
        path.write_bytes(content[:length])
        assert partial.done() == {0, 2}
    with pytest.raises(InputError, match="lacks 1 of 3 batches"):
        partial.joined()
    assert stored(tmp_path, 1).joined()[0]["index"].tolist() == INDEX.tolist()


def test_a_changed_byte_is_noticed_wherever_it_is(tmp_path):
    partial = stored(tmp_path, 0, 1, 2)
    path = tmp_path / "1.part"
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert partial.done() == {0, 2}


def test_units_that_are_missing_or_about_other_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="lacks 1 of 3 batches"):
        stored(tmp_path / "a", 0, 2).joined()
    stored(tmp_path / "b", 0, 1, 2)
    with pytest.raises(InputError, match="b is about other images"):
        Partial(tmp_path / "b", INDEX[::-1], 3).joined()
    with pytest.raises(InputError, match="about other images"):
        Partial(tmp_path / "b", INDEX[:5], 3).joined()


def test_no_images_need_no_file(tmp_path):
    partial = Partial(tmp_path / "none", INDEX[:0], 3)
    assert partial.done() == set()
    assert partial.joined() == ({}, 0.0)


def test_a_full_disk_keeps_what_was_stored_before_and_names_the_file(tmp_path):
    partial = stored(tmp_path, 0)
    (tmp_path / "1.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        stored(tmp_path, 1)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "1.part"))
    (tmp_path / "1.part").unlink()
    assert partial.done() == {0}
    assert stored(tmp_path, 1).done() == {0, 1}


def test_a_file_with_a_pickle_in_it_is_not_opened(tmp_path):
    partial = stored(tmp_path, 0, 1, 2)
    body = io.BytesIO()
    np.savez(body, index=np.array([{"index": 3}], dtype=object))
    (tmp_path / "1.part").write_bytes(_checksum(body.getvalue()) + body.getvalue())
    with pytest.raises(InputError, match=r"1\.part holds unknown content .*allow_pickle"):
        partial.joined()
