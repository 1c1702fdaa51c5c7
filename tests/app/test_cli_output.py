"""How the commands lay out what they print."""

from tollgate.app.cli_output import counted, layout, print_table

KEYS = ("id", "name", "organization", "budget USD", "requests per minute")
ROWS = [["Ju2bjixz", "web", "default", "25", 60], ["Ab3", "a longer name", "default", None, None]]


def test_a_pipe_gets_every_row_in_one_line_without_blanks_at_its_end(capsys):
    print_table(KEYS, [*ROWS, ["c", "x" * 500, "default", "1", 2]])

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and len(lines[3]) > 500
    assert all(line == line.rstrip() for line in lines)


def test_numbers_stand_to_the_right_and_nothing_is_a_dash():
    assert layout(("n", "x"), [[5, "a"], [None, "b"], [100, None]], width=None) == [
        "  n  x",
        "  5  a",
        "  -  b",
        "100  -",
    ]


def test_a_heading_breaks_between_words_only():
    assert layout(KEYS, ROWS, width=60) == [
        "                                               requests",
        "                                       budget       per",
        "id        name           organization  USD       minute",
        "Ju2bjixz  web            default       25            60",
        "Ab3       a longer name  default       -              -",
    ]


def test_a_row_that_does_not_fit_the_terminal_becomes_a_list():
    assert layout(KEYS[:3], [row[:3] for row in ROWS], width=20) == [
        "id            Ju2bjixz",
        "name          web",
        "organization  default",
        "",
        "id            Ab3",
        "name          a longer name",
        "organization  default",
    ]


def test_a_column_in_which_nothing_stands_is_left_out(capsys):
    print_table(("id", "team", "state"), [["a", None, "active"], ["b", None, "revoked"]])

    assert capsys.readouterr().out == "id  state\na   active\nb   revoked\n"


def test_headings_stand_alone_when_there_is_no_row(capsys):
    print_table(("id", "team"), [])

    assert capsys.readouterr().out == "id  team\n"


def test_wide_characters_are_aligned():
    assert layout(("a", "b"), [["\u65e5\u672c", "x"], ["abcd", "y"]], width=None)[1:] == ["\u65e5\u672c  x", "abcd  y"]


def test_what_a_client_has_named_cannot_steer_the_terminal():
    assert layout(("", ""), [["tag", "\x1b[2J\x1b]0;gone\x07\nnext"]], width=None) == [
        "tag  \\x1b[2J\\x1b]0;gone\\x07\\nnext"
    ]


def test_one_is_counted_in_the_singular():
    assert [counted(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
