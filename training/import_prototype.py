"""Turn the prototype's weights (float16, its own names) into a checkpoint of this code base.

    python training/import_prototype.py base-0.safetensors runs/onebit-0/weights.safetensors

The first default model was trained with the prototype's trainer before this package existed; this is how it came in.
"""

import sys

from safetensors.torch import load_file, save_file

NAMES = (
    ("enc.b4.", "encoder.quarter."),
    ("enc.b8.", "encoder.eighth."),
    ("enc.lin.", "encoder.shortcut."),
    ("enc.f1.", "encoder.quality_in."),
    ("enc.f2.", "encoder.quality_out."),
    ("enc.impb.", "encoder.quality_importance."),
    ("enc.imp.", "encoder.importance."),
    ("enc.code.", "encoder.codes."),
    ("enc.", "encoder."),
    ("dec.b4.", "decoder.quarter."),
    ("dec.b8.", "decoder.eighth."),
    ("dec.inp.", "decoder.stem."),
    ("dec.lin.", "decoder.shortcut_in."),
    ("dec.lin2.", "decoder.shortcut_out."),
    ("dec.f1.", "decoder.quality_in."),
    ("dec.f2.", "decoder.quality_out."),
    ("dec.", "decoder."),
    ("codes.map.0.", "planes.map_in."),
    ("codes.map.2.", "planes.map_mid."),
    ("codes.mapf.", "planes.map_out."),
    ("codes.prev.", "planes.earlier."),
    ("codes.ctx.", "planes.neighbours."),
    ("codes.qual.", "planes.quality."),
    ("codes.", "planes."),
    ("maps.c1.", "maps.conv1."),
    ("maps.c2.", "maps.conv2."),
    ("maps.c3.", "maps.conv3."),
    ("maps.c4.", "maps.out."),
    ("maps.emb.", "maps.quality."),
    ("maps.base.", "maps.coarsest."),
)
PARTS = ((".net.0.", ".hidden."), (".net.2.", ".out."), (".a.", ".reduce."), (".b.", ".conv."), (".c.", ".expand."))


def renamed(name: str) -> str:
    """The prototype's tensor name in this code base's words."""
    for old, new in NAMES:
        if name.startswith(old):
            name = new + name[len(old) :]
            break
    for old, new in PARTS:
        name = name.replace(old, new)
    return name


if __name__ == "__main__":
    source, target = sys.argv[1:3]
    save_file({renamed(name): tensor for name, tensor in load_file(source).items()}, target)
