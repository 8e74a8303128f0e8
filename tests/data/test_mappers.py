import pytest

from data.mappers import boxed


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{1} and \boxed{2}", "2"),
        (r"\boxed{\frac{a}{b}}", r"\frac{a}{b}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\text{left \{ open}}", r"\text{left \{ open}"),
        (r"\boxed {7}", "7"),
        (r"\boxed{4} then \boxed{unfinished", "4"),
        (r"\boxed{}", None),
        ("none", None),
    ],
)
def test_boxed_reads_the_last_complete_box(text, content):
    assert boxed(text) == content
