"""Makes Pillow, imageio and mimetypes know .cwic.

Invariant: imageio is not imported for it. It takes a third of the time of opening a small picture,
and whoever uses Pillow alone need not wait.
"""

import itertools

from . import pillow_plugin
from .runtime.imports import after_import

_NAME = "cwic"
_EXTENSION = ".cwic"


def register() -> None:
    """With Pillow now, with others as soon as they are imported; doing it again changes nothing."""
    pillow_plugin.register()
    after_import("imageio.config", _register_with_imageio)
    after_import("mimetypes", _register_with_mimetypes)


def _register_with_mimetypes() -> None:
    import mimetypes

    # Before the first question, the table is what `init` begins with, time and again.
    if mimetypes.inited:
        mimetypes.add_type(pillow_plugin.MIME_TYPE, _EXTENSION)
    else:
        mimetypes.types_map[_EXTENSION] = pillow_plugin.MIME_TYPE


def _register_with_imageio() -> None:
    # Not `import imageio.config`: imageio itself is not imported wholly yet.
    from imageio.config import FileExtension, PluginConfig, extension_list
    from imageio.config import known_extensions as extensions
    from imageio.config import known_plugins as plugins

    # First of all: files are known by what they begin with, and bytes have no name. imageio's own
    # plugin for Pillow would take a .cwic file, and know none of our options.
    others = {name: plugin for name, plugin in plugins.items() if name != _NAME}
    plugins.clear()
    plugins[_NAME] = PluginConfig(
        name=_NAME, class_name="CwicPlugin", module_name=f"{__package__}.imageio_plugin"
    )
    plugins.update(others)
    for format_ in itertools.chain.from_iterable(extensions.values()):
        if "pillow" in format_.priority and _NAME not in format_.priority:
            format_.priority.insert(format_.priority.index("pillow"), _NAME)

    if _EXTENSION not in extensions:
        extension = FileExtension(
            extension=_EXTENSION,
            priority=[_NAME, "pillow"],
            name="Content-weighted image compression",
        )
        extensions[_EXTENSION] = [extension]
        extension_list.append(extension)
