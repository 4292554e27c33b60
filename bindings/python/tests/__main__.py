"""Runs the tests: python3 tests [NAME...]. Prints a line for each, as cargo does, and SKIP: with the reason."""

import faulthandler
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).parent
DEADLINE = 300  # seconds; then every thread's stack is printed, and the process ends


class Result(unittest.TextTestResult):
    def startTest(self, test):
        unittest.TestResult.startTest(self, test)
        faulthandler.dump_traceback_later(DEADLINE, exit=True)

    def stopTest(self, test):
        faulthandler.cancel_dump_traceback_later()
        super().stopTest(test)

    def told(self, test, how):
        print("test %s ... %s" % (test.id(), how), flush=True)

    def addSuccess(self, test):
        self.told(test, "ok")

    def addFailure(self, test, error):
        unittest.TestResult.addFailure(self, test, error)
        self.told(test, "FAILED")

    def addError(self, test, error):
        unittest.TestResult.addError(self, test, error)
        self.told(test, "FAILED")

    def addSubTest(self, test, subtest, error):
        unittest.TestResult.addSubTest(self, test, subtest, error)
        if error is not None:
            self.told(subtest, "FAILED")

    def addSkip(self, test, reason):
        unittest.TestResult.addSkip(self, test, reason)
        self.told(test, "ok")
        print("SKIP: %s" % reason, flush=True)


def main():
    sys.path.insert(0, str(HERE))
    tests = unittest.defaultTestLoader
    tests.testNamePatterns = ["*%s*" % name for name in sys.argv[1:]] or None
    suite = tests.discover(str(HERE), top_level_dir=str(HERE))
    runner = unittest.TextTestRunner(resultclass=Result, stream=sys.stdout, verbosity=0)
    result = runner.run(suite)
    if not result.testsRun:
        print("there is no such test")
    sys.exit(not result.wasSuccessful() or not result.testsRun)


main()
