"""What the chapters show: a module a chapter, and in it a function for each figure, table and answer, named after its
label (fig_p1_scaling draws fig-p1-scaling)."""
