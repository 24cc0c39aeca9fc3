from ff_core.testing.world import FakeWorld
from ff_core.workspaces.output import OUTPUT_CHARS_MAX, PIECE_CHARS_MAX, Output


def collect():
    pieces, world = [], FakeWorld()
    return pieces, world, Output(pieces.append, world.now)


def test_the_first_line_is_said_at_once_and_the_rest_once_a_second():
    pieces, world, output = collect()
    output.line("one")
    output.line("two")
    assert pieces == ["one\n"]
    world.advance(1)
    output.line("three")
    output.line("four")
    output.flush()
    assert pieces == ["one\n", "two\nthree\n", "four\n"]


def test_of_counting_lines_only_the_newest_is_kept():
    pieces, _, output = collect()
    output.line("Cloning")
    for percent in range(101):
        output.line(f"Receiving objects: {percent:3}% ({percent}/100)")
    output.line("Resolving deltas:   0% (0/9)")
    output.flush()
    assert "".join(pieces) == "Cloning\nReceiving objects: 100% (100/100)\nResolving deltas:   0% (0/9)\n"


def test_the_whole_is_bounded_and_says_so():
    pieces, _, output = collect()
    for number in range(30_000):
        output.line(f"line {number}")
    output.flush()
    said = "".join(pieces)
    assert OUTPUT_CHARS_MAX <= len(said) < OUTPUT_CHARS_MAX + 100
    assert said.endswith("\n… (further output is not kept)\n")
    assert max(map(len, pieces)) < PIECE_CHARS_MAX + 100
