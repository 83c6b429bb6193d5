"""What PyInstaller does not find by itself: data files, and a plugin that imageio names in text.

What only extras need is left out, unless the program itself imports it.
"""

from PyInstaller.utils.hooks import collect_data_files, copy_metadata

from pillow_cwic.weights.catalogue import builtin_path

datas = collect_data_files("pillow_cwic") + copy_metadata("imageio")
datas += [(str(builtin_path()), "pillow_cwic")]  # of an editable install it lies beside
hiddenimports = ["pillow_cwic.imageio_plugin"]
excludedimports = ["torch", "matplotlib", "skimage", "scipy", "pytorch_msssim", "distributed"]
