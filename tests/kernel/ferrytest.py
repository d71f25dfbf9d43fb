# SPDX-License-Identifier: BSD-2-Clause
"""The smallest test runner: functions marked @test, reported in the lines that `boot` understands."""

import faulthandler
import signal
import sys
import time
import traceback

_tests = []


class Skipped(Exception):
    pass


class TimedOut(BaseException):
    pass


def skip(reason):
    raise Skipped(reason)


def test(function):
    _tests.append(function)
    return function


def test_where(condition):
    """@test, but elsewhere the function counts as no test at all."""
    return test if condition else lambda function: function


def fails_with(number, function, *arguments):
    """Checks that the call raises an OSError with this errno."""
    try:
        result = function(*arguments)
    except OSError as error:
        result = f"errno {error.errno}"
        if error.errno == number:
            return
    raise AssertionError(f"{function.__qualname__}{arguments}: {result}, expected errno {number}")


def _alarm(*_):
    faulthandler.dump_traceback(file=sys.stdout)
    raise TimedOut()


def _run_one(function, name):
    try:
        function()
        return "PASS", ""
    except Skipped as skipped:
        return "SKIP", str(skipped)
    except TimedOut:
        return "FAIL", "timed out"
    except BaseException as error:  # pylint: disable=broad-except
        traceback.print_exc(file=sys.stdout)
        lines = str(error).splitlines() or [""]
        return "FAIL", f"{type(error).__name__}: {lines[0]}"


def run(timeout=30, only=None):
    """Runs the tests of the calling script in the order of their definition; does not return."""
    signal.signal(signal.SIGALRM, _alarm)
    failed = False
    for function in _tests:
        name = function.__name__.replace("_", "-")
        if only and only not in name:
            continue
        started = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, timeout)
        outcome, reason = _run_one(function, name)
        signal.setitimer(signal.ITIMER_REAL, 0)
        failed = failed or outcome == "FAIL"
        reason = reason or f"{time.monotonic() - started:.2f} s"
        print(f"FERRY-TEST {name} {outcome} {reason}", flush=True)
    sys.exit(1 if failed else 0)
