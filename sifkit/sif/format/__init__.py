"""On-disk format of SIF images: types, header, descriptors, metadata, placement."""
