"""Pages that are made of what the project itself knows, written anew at every build."""

from pathlib import Path

from acon_docs import columns, copied, interface, pictures

#: Folders of the documentation that hold nothing but written pages; git does not keep them.
WRITTEN = ("gallery", "notebooks", "pictures", "reference", "results")


class Folder:
    """Where pages go: only what has changed is written, and what is written no more is removed."""

    def __init__(self, docs: Path) -> None:
        self.docs = docs
        self.kept: set[Path] = set()

    def page(self, name: str, text: str) -> None:
        """Write a page."""
        self.file(name, (text.rstrip() + "\n").encode())

    def file(self, name: str, content: bytes) -> None:
        """Write a file, pictures for example."""
        path = self.docs / name
        if path.relative_to(self.docs).parts[0] not in WRITTEN:
            raise ValueError(f"{name} is outside of {', '.join(WRITTEN)}")
        self.kept.add(path)
        if path.is_file() and path.read_bytes() == content:
            return  # an equal file keeps its time, so Sphinx reads only what has changed
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def clean(self) -> None:
        """Remove what an earlier build wrote and this one did not."""
        for name in WRITTEN:
            for path in sorted((self.docs / name).rglob("*"), reverse=True):
                if path.is_dir():
                    if not any(path.iterdir()):
                        path.rmdir()
                elif path not in self.kept:
                    path.unlink()


def write_all(docs: Path) -> None:
    """Write every page that is made of code, pictures, notebooks or results.

    Parameters
    ----------
    docs : Path
        The folder of the documentation; the project is the folder above.
    """
    folder = Folder(docs)
    interface.write(folder)
    columns.write(folder)
    copied.write(folder, docs.parent)
    pictures.write(folder)
    folder.clean()
