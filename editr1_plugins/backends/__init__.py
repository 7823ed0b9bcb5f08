"""Ways to reach a VLM: one turn in, samples out. A judge and a decomposer share them; neither knows which one it has."""
