"""On-disk structures of ext3: one module each for how it is declared, decoded, judged, searched and packed."""
