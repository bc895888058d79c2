"""The report: chapters, their chart and table helpers, and the offline engine that renders them."""
