"""The errors a caller can meet: one tree under OSError, which Pillow passes through to the user.

Pillow turns SyntaxError, IndexError, TypeError, KeyError, EOFError and struct.error from a plugin
into "cannot identify image file"; an OSError reaches the caller with its message. Wrong *options*
are ValueError, as in Pillow.
"""


class CwicError(OSError):
    """Anything wrong with a .cwic file or with what is needed to read it.

    What a message quotes of a file, a manifest or a server cannot steer a terminal.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable(arg) if isinstance(arg, str) else arg for arg in args))


def printable(text: str) -> str:
    """The text with control and formatting characters written as escapes; lines stay lines."""
    return "".join(
        character
        if character.isprintable() or character == "\n"
        else character.encode("unicode_escape").decode()
        for character in text
    )


class FormatError(CwicError):
    """The bytes are malformed, damaged or truncated; the message names the section."""


class UnsupportedError(CwicError):
    """Well-formed, but made for a newer version or beyond the limits of this one."""


class WeightsError(CwicError):
    """A model is unknown, unreachable or damaged.

    The message says where it was looked for and what to do.
    """
