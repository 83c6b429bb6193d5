"""Makes Pillow and imageio know .cwic.

Invariant: imageio is not imported for it. It takes a third of the time of opening a small picture,
and whoever uses Pillow alone need not wait.
"""

from . import pillow_plugin
from .runtime.imports import after_import

_EXTENSION = ".cwic"


def register() -> None:
    """With Pillow now, with imageio as soon as it is imported; doing it again changes nothing."""
    pillow_plugin.register()
    after_import("imageio.config", _register_with_imageio)


def _register_with_imageio() -> None:
    # Not `import imageio.config`: imageio itself is not imported wholly yet.
    from imageio.config import FileExtension, PluginConfig, extension_list
    from imageio.config import known_extensions as extensions
    from imageio.config import known_plugins as plugins

    name = "cwic"
    plugins[name] = PluginConfig(
        name=name, class_name="CwicPlugin", module_name=f"{__package__}.imageio_plugin"
    )
    if _EXTENSION not in extensions:
        extension = FileExtension(
            extension=_EXTENSION,
            priority=[name, "pillow"],
            name="Content-weighted image compression",
        )
        extensions[_EXTENSION] = [extension]
        extension_list.append(extension)
