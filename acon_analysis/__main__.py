"""``python -m acon_analysis`` is ``acon``; so is ``torchrun -m acon_analysis``."""

from acon_analysis.cli import main

if __name__ == "__main__":
    main()
