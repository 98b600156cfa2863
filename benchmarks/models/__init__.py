"""Networks that the benchmarks measure on; their trained weights come from ``WHIT_DATA``."""
