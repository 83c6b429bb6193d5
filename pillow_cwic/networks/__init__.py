"""The CNNs: their configuration, layers, encoder and decoder, binarizer and importance map."""
