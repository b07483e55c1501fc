"""What is read from the reports of runs."""

from steady.results import by_folder, failures, read, slowest

REPORT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_hosts" name="test_a[v1.2]" time="{a}"/>
<testcase classname="tests.unit.test_hosts.TestHosts" name="test_b" time="1.5">{b}</testcase>
<testcase classname="tests.e2e.test_small" name="test_c" time="60"/>
</testsuite></testsuites>"""
FAILED = '<failure message="assert 1 == 2&#10; +  more">all of it</failure>'


def runs(tmp_path):
    report = tmp_path / "report.xml"
    for told in (REPORT.format(a=0.5, b=""), REPORT.format(a=2.5, b=FAILED)):
        report.write_text(told)
        yield read(report)


def test_a_test_that_fails_once_is_named_with_its_run_and_its_reason(tmp_path):
    name = "tests/unit/test_hosts.py::TestHosts::test_b"
    assert failures(list(runs(tmp_path))) == {name: {2: "assert 1 == 2"}}


def test_time_is_told_by_folder_and_by_test(tmp_path):
    both = list(runs(tmp_path))
    assert by_folder(both) == [("e2e", 1, 60, 60, 60), ("unit", 2, 2, 3, 4)]
    assert slowest(both, 2) == [
        ("tests/e2e/test_small.py::test_c", 60),
        ("tests/unit/test_hosts.py::test_a[v1.2]", 1.5),
    ]
