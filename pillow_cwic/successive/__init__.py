"""The codes of the successive binarizer: their order, their distributions, and the ladder of decisions they are."""
