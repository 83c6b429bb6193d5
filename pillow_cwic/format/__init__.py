"""The file format: bytes <-> header, metadata, planes and tiles (docs/format.md, sections 1 to 4)."""
