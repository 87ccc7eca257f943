import pytest
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.datasets.numbering import is_number, number_names


def test_a_name_that_is_a_number_keeps_it_and_others_are_counted_on() -> None:
    assert number_names(["ego", "7", "a", "3"]) == {"7": 7, "3": 3, "ego": 8, "a": 9}
    assert number_names(["x", "y"]) == {"x": 0, "y": 1}
    assert number_names([]) == {}


@pytest.mark.parametrize("name", ["07", "-1", "+1", " 1", "1.0", "٣", "", "2147483647", "9" * 5000])
def test_other_spellings_are_no_numbers(name: str) -> None:
    assert not is_number(name)


def test_ids_of_32_bits_are_numbers() -> None:
    assert is_number("0")
    assert is_number("2147483646")


@given(st.lists(st.text(alphabet="0123a", max_size=3)))
def test_no_two_names_have_a_number(names: list[str]) -> None:
    numbers = number_names(names)
    assert set(numbers) == set(names)
    assert len(set(numbers.values())) == len(numbers)
