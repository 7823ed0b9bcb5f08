"""Edit-R1 as plugins."""
