"""The command `acon`, run in this process."""

import pytest

from acon_analysis.cli import main


def status(*arguments: object) -> int:
    """Run the command; return its exit status."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    code = stopped.value.code
    assert isinstance(code, int)
    return code
