"""Do something once a module has been imported, whoever imports it; it is not imported for that.

Invariant: imports nothing but `sys`, and nothing of this package. `autoload` runs this file as it
is, at the start of every Python of an environment.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing itself takes milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def after_import(name: str, action: Callable[[], None]) -> None:
    """Call `action` now if the module is there, else right after its own code has run."""
    module = sys.modules.get(name)
    if module is None:
        sys.meta_path.insert(0, _Watcher(name, action))
    elif not getattr(module.__spec__, "_initializing", False):
        action()


class _Watcher:
    """Finds one module as the others do, and lets it be loaded by a `_Watched`."""

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self.name = name
        self.action = action

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.name or self not in sys.meta_path:
            return None
        place = sys.meta_path.index(self)
        sys.meta_path.remove(self)
        others = (finder.find_spec(name, path, target) for finder in list(sys.meta_path))
        spec = next((found for found in others if found is not None), None)
        if spec is None or spec.loader is None:
            sys.meta_path.insert(place, self)
        else:
            spec.loader = _Watched(spec.loader, self)  # type: ignore[assignment]
        return spec


class _Watched:
    """The module's own loader, followed by the action."""

    def __init__(self, loader: Loader, watcher: _Watcher) -> None:
        self.loader = loader
        self.watcher = watcher

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        try:
            self.loader.exec_module(module)
        except BaseException:
            sys.meta_path.insert(0, self.watcher)  # the next attempt
            raise
        # The action may import what calls `after_import` for this module, in vain else.
        if module.__spec__ is not None:
            module.__spec__._initializing = False  # type: ignore[attr-defined]
        self.watcher.action()
