"""sifkit: overlay images for Apptainer and Singularity, made without root, without mounting and without other programs."""

__all__ = ["__version__"]

__version__ = "0.6.2"
