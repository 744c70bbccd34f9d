"""An empty code location: the floor of loading ours."""

import dagster as dg

defs = dg.Definitions()
