"""Ways to reach a VLM: one turn in, samples out. Judges and decomposers share them, and none knows which it has."""
