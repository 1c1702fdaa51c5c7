"""What a process says while it runs."""

import logging

from tollgate.app.logs import REPEATED_EVERY_S, Seldom


def said(name: str, message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, __file__, 1, message, values, None)


def test_of_what_a_library_repeats_one_line_in_a_while_is_shown_and_the_rest_counted():
    now = [0.0]
    seldom = Seldom(lambda: now[0])

    def shown(node: int) -> str | None:
        record = said("aiokafka.client", "cannot reach node %d", node)
        return record.getMessage() if seldom.filter(record) else None

    assert shown(1) == "cannot reach node 1"
    assert [shown(2), shown(1)] == [None, None]
    now[0] = REPEATED_EVERY_S
    assert shown(3) == "cannot reach node 3 (and 2 more like it)"
    now[0] = 2 * REPEATED_EVERY_S
    assert shown(4) == "cannot reach node 4"


def test_other_lines_of_the_library_and_those_of_the_gateway_are_all_shown():
    seldom = Seldom(lambda: 0.0)

    assert seldom.filter(said("aiokafka.client", "one"))
    assert seldom.filter(said("aiokafka.client", "another"))
    assert seldom.filter(said("aiokafka.conn", "one"))
    assert all(seldom.filter(said("tollgate", "the same")) for _ in range(3))
