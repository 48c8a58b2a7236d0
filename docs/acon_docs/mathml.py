"""Formulas as MathML, which browsers draw by themselves: no LaTeX here, no request there.

The converter is docutils' own; its interface is called provisional, so this is the only place
that knows it.
"""

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

_log = logging.getLogger(__name__)


def mathml(source: str, *, block: bool = False) -> str:
    """Return MathML of a formula in LaTeX.

    Raises
    ------
    docutils.utils.math.MathError
        If it uses a command that the converter does not know.
    """
    # Line feeds between the elements would become spaces in running text.
    return "".join(line.strip() for line in tex2mathml(source, as_block=block).splitlines())


def _append(translator: Any, node: nodes.Element, *, block: bool) -> None:
    try:
        markup = mathml(node.astext(), block=block)
    except MathError as error:
        _log.warning("formula %r: %s", node.astext(), error, location=node)
        markup = f"<code>{translator.encode(node.astext())}</code>"
    translator.body.append(f'<div class="formula">{markup}</div>' if block else markup)
    raise nodes.SkipNode


def _inline(translator: Any, node: nodes.Element) -> None:
    _append(translator, node, block=False)


def _block(translator: Any, node: nodes.Element) -> None:
    _append(translator, node, block=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer under the name "mathml"."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
