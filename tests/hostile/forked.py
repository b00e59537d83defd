"""Run one of our commands many times at the price of one start: `python -m tests.hostile.forked MODULE`, rows of JSON on stdin.

A row is {"arguments", "env", "output"}: a child is forked for it that calls the command's `main` as `python -m MODULE arguments`
would, with stdout and stderr in files named `output` and .stdout, .stderr; its exit status is printed. `run_rows` does all that.
"""

import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def run_rows(module: str, rows: list[dict], seconds: float = 200.0) -> list[subprocess.CompletedProcess[str]]:
    """Run a command once for each row, one after the other. Nothing of paychan's in our environment is handed on."""
    env = {name: value for name, value in os.environ.items() if name != "PORT" and not name.startswith("PAYCHAN_")}
    command = [sys.executable, "-m", "tests.hostile.forked", module]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    done = subprocess.run(command, input=lines, env=env, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    statuses = [int(status) for status in done.stdout.split()]
    assert len(statuses) == len(rows), done.stderr
    texts = [[Path(f"{row['output']}.{name}").read_text() for name in ("stdout", "stderr")] for row in rows]
    return [
        subprocess.CompletedProcess(row["arguments"], status, *both)
        for row, status, both in zip(rows, statuses, texts, strict=True)
    ]


def child(main, row: dict) -> int:
    os.environ.update(row["env"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{row['output']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.argv[1:] = row["arguments"]
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
