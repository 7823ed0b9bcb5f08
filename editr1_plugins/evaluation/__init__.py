"""Evaluation: is a judge any good? Public benchmarks, their official arithmetic, and an honest one beside it."""
