from loco_core.report import Report

FOUND, MORE = Report(("found", "go on"), ("3 rows",)), Report(("beware",), ("7 seconds",))


def test_the_result_comes_first_and_the_figures_below_a_blank_line():
    assert str(FOUND) == "found\ngo on\n\n3 rows"
    assert str(Report(("found",))) == "found"


def test_the_brief_is_the_result_alone():
    assert FOUND.brief == "found\ngo on"


def test_two_reports_are_told_as_one():
    assert FOUND + MORE == Report(("found", "go on", "beware"), ("3 rows", "7 seconds"))


def test_warnings_are_told_before_all_else():
    warned = FOUND + Report(("WARNING: it is wrong",))
    assert warned.brief == "WARNING: it is wrong\nfound\ngo on"
