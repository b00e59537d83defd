"""Aim: one form of log line, whatever is logged, by whom and where. Method: records of all kinds through the real formatter; the
time zone of the machine is another than UTC."""

import json
import logging
import os
import sys
import threading
import time
import warnings

import pytest

from paychan import logs
from tests.log_lines import LINE, unquiet


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    """Leave logging as it was: `set_up` is for a whole process."""
    monkeypatch.setenv("TZ", "America/St_Johns")
    time.tzset()
    loggers = [logging.getLogger(), logging.getLogger(logs.GRANIAN)]
    before = [(logger.handlers[:], logger.level) for logger in loggers]
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    logging.captureWarnings(False)
    monkeypatch.undo()
    time.tzset()


def line(capsys) -> str:
    """Return the one line that was logged."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and text.endswith("\n"), text
    assert LINE.fullmatch(text[:-1]), text
    return text[:-1]


def test_the_time_is_utc_and_the_rest_says_who_speaks():
    record = logging.makeLogRecord(
        {"name": "paychan.store", "msg": "ready at %s", "args": ("unix:x",), "levelname": "INFO", "process": 4711}
    )
    record.created, record.msecs = 1795663567.1239, 123.9
    text = logs.LineFormatter("store").format(record)
    assert text == "2026-11-26T03:26:07.123Z INFO store[4711] paychan.store: ready at unix:x"


def test_many_lines_and_control_characters_become_one_line(capsys):
    logs.set_up("worker")
    logging.getLogger("paychan.chain").warning("it says: %s", "no\r\n2026-01-01T00:00:00.000Z INFO forged\x1b[2J\udcff\u2028end")
    assert line(capsys).endswith("it says: no | 2026-01-01T00:00:00.000Z INFO forged\\x1b[2J\\udcff | end")


def test_a_traceback_is_one_line(capsys):
    logs.set_up("worker")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("paychan.watcher").exception("looking failed")
    text = line(capsys)
    assert "ERROR worker[" in text and "looking failed | Traceback (most recent call last): | File" in text
    assert text.endswith("ValueError: two | lines")


def test_granian_speaks_in_the_same_form_through_its_own_configuration(capsys):
    from granian.log import LogLevels, configure_logging

    configure_logging(LogLevels.info, logs.granian_config("server"))
    logging.getLogger("_granian").info("Listening at: %s", "http://127.0.0.1:8000")
    assert " INFO server[" in (text := line(capsys)) and text.endswith("] granian: Listening at: http://127.0.0.1:8000")
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    assert " ERROR server[" in line(capsys)
    logs.set_up("worker")
    logging.getLogger("_granian.serve").info("Started worker-1")
    assert "] granian.serve: Started worker-1" in line(capsys)


def test_what_nobody_catches_and_what_python_warns_of_are_logged(capsys):
    logs.set_up("server")

    def fail() -> None:
        raise RuntimeError("in a thread")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert "CRITICAL server[" in (text := line(capsys)) and "RuntimeError: in a thread" in text
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "WARNING server[" in line(capsys)
    sys.excepthook(KeyError, KeyError("main"), None)
    assert "KeyError: 'main'" in line(capsys)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == ""


def test_a_record_that_cannot_be_formatted_is_said_to_be_so(capsys):
    logs.set_up("store")
    logging.getLogger("paychan.store").warning("%d channels", "many")
    assert line(capsys).endswith("paychan.store: a record that cannot be shown: TypeError")


def test_a_command_s_log_is_silent(capsys):
    root = logging.getLogger()
    root.handlers[:] = []
    logs.silence()
    logging.getLogger("paychan.link").warning("store: the connection was lost")
    assert capsys.readouterr().err == ""


def test_the_reader_of_lines_sees_what_is_wrong():
    """Checks of whole systems are worth as much as this."""
    good = "2026-11-26T03:26:07.123Z INFO store[1] paychan.store: ready"
    assert unquiet(good) == []
    for bad in ("", "[INFO] Starting granian", good.replace("INFO", "WARNING"), good.replace("T03", " 03"), good.replace("Z", "")):
        assert unquiet(bad)


@pytest.mark.parametrize("level", ["info", "warning"])
def test_the_least_level_is_the_configurations(capsys, level):
    logs.set_up("store", logs.LogConfig(level))
    logging.getLogger("paychan.store").info("an event")
    assert ("an event" in capsys.readouterr().err) is (level == "info")


def test_as_json_each_line_is_an_object_with_the_same_keys(capsys):
    logs.set_up("store", logs.LogConfig(form="json"))
    logging.getLogger("paychan.store").info("two\nlines, \x1b and %s", '"quotes"')
    logging.getLogger(logs.GRANIAN).error("from below")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert list(first) == list(second) == ["time", "level", "process", "pid", "logger", "message"]
    assert first["message"] == 'two | lines, \\x1b and "quotes"' and first["process"] == "store" and first["pid"] == os.getpid()
    assert (second["logger"], second["level"]) == ("granian", "ERROR")


def test_warnings_that_come_in_masses_are_counted(capsys, monkeypatch):
    logs.set_up("store")
    now = [0.0]
    logging.getLogger().handlers[0]._masses = logs.Masses(lambda: now[0])
    log = logging.getLogger("paychan.store")
    for number in range(logs.ALIKE_MAX + 50):
        log.warning("refused %d of 100%%", number)
        log.info("signed %d", number)  # what is no warning is never left out
    log.warning("another kind")
    text = capsys.readouterr().err
    assert text.count("refused") == logs.ALIKE_MAX and text.count("signed") == logs.ALIKE_MAX + 50 and "another kind" in text
    now[0] += logs.ALIKE_SECONDS
    log.info("later")
    log.warning("refused %d of 100%%", 7)
    told, later, again = capsys.readouterr().err.splitlines()
    assert told.endswith("50 more were left out like: refused %d of 100%%") and later.endswith("later") and "refused 7" in again
