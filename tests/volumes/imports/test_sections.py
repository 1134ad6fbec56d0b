"""Sections of a stack: their order and numbers, and what is done about missing ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from em_blocks.errors import ConfigError
from em_blocks.geometry import Box
from em_blocks.volumes.imports.images import ImageStack
from em_blocks.volumes.imports.sections import Filled, find_sections, missing_numbers


def section(seed, shape=(6, 7)):
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


def write_png(folder, **sections):
    for name, values in sections.items():
        Image.fromarray(values).save(folder / f"{name}.png")


def write_in_folders(folder, **sections):
    """One folder per section, with an image of the same name in each."""
    for name, values in sections.items():
        (folder / name).mkdir()
        Image.fromarray(values).save(folder / name / "em_8bit.png")


def read_all(path, **options):
    source = ImageStack(type="images", path=path, **options)
    source.check()
    with source.open() as read:
        return read(Box((0, 0, 0), source.header().shape))


def refused(path, **options):
    with pytest.raises(ConfigError) as caught:
        ImageStack(type="images", path=path, **options).check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- order -----------------------------------------------------------------------------


def test_sections_are_in_numeric_not_in_alphabetic_order(tmp_path):
    write_png(tmp_path, **{f"s{i}": section(i) for i in (8, 9, 10, 11)})
    np.testing.assert_array_equal(read_all(tmp_path), [section(i) for i in (8, 9, 10, 11)])


def test_the_section_number_is_the_last_number_that_varies(tmp_path):
    write_png(tmp_path, **{f"2016_z{i:04}_ch1_8bit": section(i) for i in (3, 4, 5)})
    np.testing.assert_array_equal(read_all(tmp_path), [section(i) for i in (3, 4, 5)])


def test_a_running_date_before_the_section_number_does_not_matter(tmp_path):
    write_png(tmp_path, day1_s10=section(0), day2_s11=section(1), day2_s12=section(2))
    np.testing.assert_array_equal(read_all(tmp_path), [section(i) for i in range(3)])


def test_a_single_image_is_one_section(tmp_path):
    write_png(tmp_path, overview=section(0))
    assert ImageStack(type="images", path=tmp_path).header().shape == (1, 6, 7)
    np.testing.assert_array_equal(read_all(tmp_path / "overview.png"), [section(0)])


def test_a_pattern_chooses_one_series_of_a_folder(tmp_path):
    write_png(tmp_path, **{f"raw{i}": section(i) for i in range(3)})
    write_png(tmp_path, **{f"mask{i}": section(9) for i in range(3)})
    np.testing.assert_array_equal(read_all(tmp_path / "raw*.png"), [section(i) for i in range(3)])
    assert "mask" in (message := refused(tmp_path))
    assert "pattern" in message


def test_other_files_and_hidden_images_are_not_sections(tmp_path):
    write_png(tmp_path, s1=section(1), s2=section(2))
    (tmp_path / "notes.txt").write_text("42")
    (tmp_path / "._s3.png").write_bytes(b"resource fork")
    assert find_sections(tmp_path).names == ["s1.png", "s2.png"]


def test_gaps_are_an_error_that_names_the_missing_sections(tmp_path):
    write_png(tmp_path, **{f"s{i:03}": section(i) for i in (1, 2, 4, 9)})
    assert "Sections are missing" in (message := refused(tmp_path))
    assert ": 3, 5-8 (" in message


def test_a_huge_gap_takes_no_time_and_many_gaps_no_page():
    assert missing_numbers([1, 10**15]) == f"2-{10**15 - 1}"
    assert missing_numbers(list(range(0, 2000, 2))).endswith("17, 19 and 989 more gaps")


@given(st.sets(st.integers(0, 60), min_size=1))
def test_the_named_gaps_are_exactly_the_missing_numbers(numbers):
    named = set()
    for gap in filter(None, missing_numbers(sorted(numbers), at_most=100).split(", ")):
        first, _, last = gap.partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == set(range(min(numbers), max(numbers) + 1)) - numbers


def test_the_same_number_twice_is_an_error_that_names_both_files(tmp_path):
    write_png(tmp_path, s1=section(1), s01=section(1), s2=section(2))
    message = refused(tmp_path)
    assert "s1.png" in message
    assert "s01.png" in message


def test_tiles_of_sections_are_not_taken_for_sections(tmp_path):
    write_png(tmp_path, **{f"s{s}_tile{t}": section(s) for s in (1, 2) for t in (1, 2)})
    assert "same section number" in refused(tmp_path)


def test_unpadded_numbers_of_several_digits_are_in_numeric_order(tmp_path):
    numbers = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    write_png(tmp_path, **{f"brain_{i}": section(i) for i in numbers})
    np.testing.assert_array_equal(read_all(tmp_path), [section(i) for i in numbers])


# -- which number ----------------------------------------------------------------------


def test_a_pattern_says_which_of_several_numbers_is_the_section(tmp_path):
    dates = [30, 7, 19]  # of the recordings, which go up and down
    for i, date in enumerate(dates):
        write_png(tmp_path, **{f"z{i + 9}_2019-01-{date}": section(i)})
    assert "Sections are missing" in refused(tmp_path)
    values = read_all(tmp_path, section_pattern=r"^z(\d+)_")
    np.testing.assert_array_equal(values, [section(i) for i in range(3)])


def test_a_pattern_orders_names_that_differ_in_more_than_numbers(tmp_path):
    write_png(tmp_path, top_s1=section(1), middle_s2=section(2), bottom_s3=section(3))
    assert "not one series" in refused(tmp_path)
    values = read_all(tmp_path, section_pattern=r"_s(\d+)")
    np.testing.assert_array_equal(values, [section(i) for i in (1, 2, 3)])


def test_an_image_that_does_not_fit_the_pattern_is_an_error_that_names_it(tmp_path):
    write_png(tmp_path, s1=section(1), overview=section(2))
    assert "overview.png" in refused(tmp_path, section_pattern=r"s(\d+)")
    assert "has 's' where the section number is" in refused(tmp_path / "s1.png", section_pattern="(s)")


@pytest.mark.parametrize(
    ("pattern", "reason"), [("s[", "no regular expression"), ("s.*", "0 groups"), ("(s)(1)", "2 groups")]
)
def test_a_pattern_that_names_no_number_is_refused(tmp_path, pattern, reason):
    with pytest.raises(ConfigError, match=reason):
        ImageStack(type="images", path=tmp_path, section_pattern=pattern)


# -- folders per section ---------------------------------------------------------------


def test_folders_with_one_image_each_are_sections_by_the_number_of_the_folder(tmp_path):
    write_in_folders(tmp_path, **{f"S{i}": section(i) for i in (8, 9, 10)})
    (tmp_path / "logs").mkdir()
    np.testing.assert_array_equal(read_all(tmp_path), [section(i) for i in (8, 9, 10)])
    np.testing.assert_array_equal(read_all(tmp_path / "S*" / "em_*.png"), read_all(tmp_path))


def test_a_folder_with_several_images_holds_tiles_and_is_refused(tmp_path):
    write_in_folders(tmp_path, S1=section(1), S2=section(2))
    write_png(tmp_path / "S2", tile_2=section(3))
    message = refused(tmp_path)
    assert f"{tmp_path}/S2 holds 2 images" in message
    assert 'by a source of the type "tiles"' in message
    np.testing.assert_array_equal(
        read_all(tmp_path / "S*" / "em_8bit.png"), [section(1), section(2)]
    )


def test_the_identity_of_folders_per_section_follows_their_names(tmp_path):
    write_in_folders(tmp_path, S1=section(1), S2=section(1))
    before = ImageStack(type="images", path=tmp_path).identity()
    (tmp_path / "S2").rename(tmp_path / "S3")
    (tmp_path / "S1").rename(tmp_path / "S2")
    assert ImageStack(type="images", path=tmp_path).identity() != before


# -- gaps ------------------------------------------------------------------------------


@pytest.fixture
def with_gaps(tmp_path):
    """Sections 3, 4, 7 and 9: of 5, 6 and 8 there are none."""
    write_png(tmp_path, **{f"s{i}": section(i) for i in (3, 4, 7, 9)})
    return tmp_path


def test_gaps_are_filled_with_the_nearest_section_the_one_before_where_both_are_as_near(with_gaps):
    expected = [section(i) for i in (3, 4, 4, 7, 7, 7, 9)]
    np.testing.assert_array_equal(read_all(with_gaps, gaps="repeat"), expected)


def test_gaps_are_filled_with_zeros_on_request(with_gaps):
    values = read_all(with_gaps, gaps="zero")
    assert values.shape == (7, 6, 7)
    for z, number in enumerate(range(3, 10)):
        expected = 0 if number in (5, 6, 8) else section(number)
        assert (values[z] == expected).all()


def test_what_was_filled_from_what_is_stated(with_gaps):
    assert find_sections(with_gaps, gaps="zero").filled == [(2, 5, None), (3, 6, None), (5, 8, None)]
    assert find_sections(with_gaps, gaps="repeat").filled == [
        Filled(z=2, number=5, source=4), Filled(3, 6, 7), Filled(5, 8, 7)
    ]
    source = ImageStack(type="images", path=with_gaps, gaps="repeat")
    assert source.attributes() == {"filled_sections": [
        {"z": 2, "number": 5, "from": 4}, {"z": 3, "number": 6, "from": 7},
        {"z": 5, "number": 8, "from": 7},
    ]}
    assert source.said() == "missing sections are filled with copies of their neighbours: 5, 6, 8"


def test_a_stack_without_gaps_is_stored_the_same_whatever_is_to_be_done_about_them(tmp_path):
    write_png(tmp_path, **{f"s{i}": section(i) for i in (1, 2, 3)})
    source = ImageStack(type="images", path=tmp_path, gaps="repeat")
    assert (source.attributes(), source.said()) == ({}, None)
    assert source.counter()(Box((0, 0, 0), (3, 6, 7))) == {}
    np.testing.assert_array_equal(read_all(tmp_path, gaps="repeat"), read_all(tmp_path))


def test_every_filled_section_is_counted_in_the_one_box_that_has_it(with_gaps):
    count = ImageStack(type="images", path=with_gaps, gaps="zero").counter()
    boxes = [Box((z, 0, 0), (2, 6, 7)) for z in (0, 2, 4)] + [Box((6, 0, 0), (1, 6, 7))]
    assert [count(box)["filled_sections"] for box in boxes] == [0, 2, 1, 0]


def test_more_missing_sections_than_there_are_hints_at_other_numbers(tmp_path):
    write_png(tmp_path, **{f"s{i}": section(0) for i in (1, 2, 10**12)})
    message = refused(tmp_path, gaps="repeat")
    assert "more than there are" in message
    assert "section_pattern" in message


def test_as_many_missing_sections_as_there_are_can_be_filled_and_no_more(tmp_path):
    write_png(tmp_path, s1=section(1), s4=section(4))
    np.testing.assert_array_equal(
        read_all(tmp_path, gaps="repeat"), [section(i) for i in (1, 1, 4, 4)]
    )
    (tmp_path / "s4.png").rename(tmp_path / "s5.png")
    assert "3 sections" in refused(tmp_path, gaps="repeat")


def test_keys_that_are_not_used_are_not_in_a_stored_config(tmp_path):
    assert ImageStack(type="images", path=tmp_path).model_dump(mode="json") == {
        "type": "images", "path": str(tmp_path)
    }
