"""Plan of a run, pure: the user's options, the site's configuration and the facts of host and images in, a RunPlan out."""
