"""On-disk structures of ext3: declared, decoded, checked, searched and packed, a module each."""
