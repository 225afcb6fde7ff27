"""Another size of a filesystem in an image, and its rebuild."""
