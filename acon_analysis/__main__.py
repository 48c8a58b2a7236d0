"""``python -m acon_analysis`` is ``acon``; so is ``torchrun -m acon_analysis``."""

import sys


def main() -> None:
    """Run the command; an interruption of its first imports is one line, too."""
    try:
        from acon_analysis.cli import main as command
    except KeyboardInterrupt:
        sys.stderr.write("acon: interrupted; nothing was begun\n")
        raise SystemExit(130) from None
    command()


if __name__ == "__main__":
    main()
