"""From a model's name to a verified file, and from there to one loaded model."""
