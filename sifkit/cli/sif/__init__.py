"""``sifkit sif``: the verbs for SIF images, a module for each; ``verbs`` is the group."""
