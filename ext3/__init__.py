"""A stand-alone library for one file format: ext3 images, read and written without mounting."""
