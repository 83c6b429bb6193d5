"""What the float network of the codes and the integer one must agree on.

Units, ranges and scales of the two outputs, the mean and the scale of a logistic distribution.
"""

OUTPUT_BITS = 4  # fraction bits of both outputs in integers: means come in sixteenths

SCALES = 64
"""Scales, log-spaced from e^FIRST_LOG_SCALE to e^LAST_LOG_SCALE.

A scale output of 0 is the one with index SCALES/2.
"""

FIRST_LOG_SCALE = -3
LAST_LOG_SCALE = 5

SEEN = 15
"""Codes count as at most this much when they are context.

A quarter of it fits the integer form's inputs.
"""

COARSE = 8
"""Large codes are seen a second time, in steps of this much, up to SEEN of them."""

MEAN_MAX = 120
"""Largest mean of a code, either way."""

EXCHANGE = 16
"""Bits that a squared error of one step is worth to the encoder, choosing between two codes.

Where steps are as fine as their rate warrants, theory says 6 / ln 2 = 8.7; networks that were
trained on rounded features want less haste. Measured in training/LOG.md.
"""

TABLE_BITS = 30  # fraction bits of the distribution table
