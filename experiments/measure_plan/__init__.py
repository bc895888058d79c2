"""What one machine can measure of the homework: its jobs, their times, and their running one after the other."""
