"""Run one of our commands many times at the price of one start: `python -m tests.hostile.forked MODULE`, rows of JSON on stdin.

A row is {"argument", "env", "output"}: a child is forked for it that calls the command's `main` as `python -m MODULE argument`
would,
with stdout and stderr in files named `output` and .stdout, .stderr; its exit status is printed.
"""

import importlib
import json
import os
import sys
import traceback


def child(main, row: dict) -> int:
    os.environ.update(row["env"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{row['output']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.argv[1:] = [row["argument"]]
    try:
        return int(main() or 0)
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def run(module: str) -> None:
    main = importlib.import_module(f"{module}.{'__main__' if module == 'paychan' else 'serving'}").main
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(child(main, json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    run(sys.argv[1])
