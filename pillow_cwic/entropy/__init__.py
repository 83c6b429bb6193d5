"""The entropy layer: codes and importance levels of a tile <-> bytes, in exact integers."""
