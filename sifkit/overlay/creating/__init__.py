"""Creation of overlay images: scan the source, plan the image, write it."""
