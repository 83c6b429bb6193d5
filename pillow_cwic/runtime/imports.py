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
        _WATCHER.actions.setdefault(name, []).append(action)
        if _WATCHER not in sys.meta_path:
            sys.meta_path.insert(0, _WATCHER)
    elif not getattr(module.__spec__, "_initializing", False):
        action()


class _Watcher:
    """Finds modules as the others do, and lets those that are waited for be loaded by a `_Watched`.

    One for all of them: every import of a Python asks it.
    """

    def __init__(self) -> None:
        self.actions: dict[str, list[Callable[[], None]]] = {}  # by the module's name

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        actions = self.actions.pop(name, None)  # the others may ask us in turn
        if actions is None:
            return None
        try:
            others = (finder.find_spec(name, path, target) for finder in list(sys.meta_path))
            spec = next((found for found in others if found is not None), None)
        finally:
            self.actions[name] = actions  # to find it is not to import it
        if spec is not None and spec.loader is not None:
            spec.loader = _Watched(spec.loader, self)  # type: ignore[assignment]
        return spec

    def imported(self, name: str) -> None:
        """Do what waited for the module, and stand aside where nothing waits any more."""
        actions = self.actions.pop(name, [])
        if not self.actions and self in sys.meta_path:
            sys.meta_path.remove(self)
        for action in actions:
            action()


_WATCHER = _Watcher()


class _Watched:
    """The module's own loader, followed by the actions."""

    def __init__(self, loader: Loader, watcher: _Watcher) -> None:
        self.loader = loader
        self.watcher = watcher

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        # An action may import what calls `after_import` for this module, in vain else.
        if module.__spec__ is not None:
            module.__spec__._initializing = False  # type: ignore[attr-defined]
        self.watcher.imported(module.__name__)
