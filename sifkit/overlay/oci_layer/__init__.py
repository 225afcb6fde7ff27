"""Export of upper/ as an OCI layer."""
