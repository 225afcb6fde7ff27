"""Images as files: which format, where a filesystem lies in them, who may open and lock them."""
