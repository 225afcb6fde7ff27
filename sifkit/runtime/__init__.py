"""Commands run in containers: the plan of a run, the site's configuration, and (Linux only) what carries the plan out."""
