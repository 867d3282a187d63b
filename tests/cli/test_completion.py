import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = Path(sys.executable).parent
WORDS = """
script=$({command} --show-completion) && eval "$script"
COMP_WORDS=({command} {word}) COMP_CWORD=1
{function} {command}
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("command", "function", "word", "completed"),
    [
        ("iyscheck", "_iyscheck_completion", "scr", "scrub"),
        ("iyscheck", "_iyscheck_completion", "doc", "doctor"),
        ("iyscheck-loader", "_iyscheck_loader_completion", "accept-r", "accept-rejects"),
    ],
)
def test_bash(command: str, function: str, word: str, completed: str) -> None:
    """What `--show-completion` gives to bash completes the commands' names."""
    environment = {**os.environ, "PATH": f"{COMMANDS}:{os.environ['PATH']}"}
    program = WORDS.format(command=command, function=function, word=word)

    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False, env=environment)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [completed]
