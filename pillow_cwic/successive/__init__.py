"""The second family of models: integer codes from the successive binarizer, at 1/16 resolution."""
