"""HTML and SVG elements. Text is escaped where it enters, so that nothing from the data can become markup."""

from __future__ import annotations

import html
import re

VOID = frozenset({"meta", "link", "img", "br", "col", "hr"})
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Markup as it is, anything else with every special character escaped and every character that HTML
    does not allow (control characters, lone surrogates) replaced."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(_CONTROL.sub("\ufffd", str(text)), quote=True))


def join(*parts: object) -> Markup:
    """Parts one after another, escaped unless they are markup."""
    return Markup("".join(map(escape, parts)))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element. In names of attributes a final underscore is dropped and others become hyphens (`class_`,
    `aria_label`; `viewBox` stays); an attribute that is None or False is left out, True stands alone."""
    parts = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{escape(value)}"')
    opened = f"<{' '.join(parts)}>"
    if name in VOID:
        assert not children, f"{name} has no content"
        return Markup(opened)
    return Markup(f"{opened}{join(*children)}</{name}>")
