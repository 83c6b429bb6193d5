"""The file format: bytes <-> header, metadata, PNG planes, tiles (docs/format.md, sections 1-4)."""
